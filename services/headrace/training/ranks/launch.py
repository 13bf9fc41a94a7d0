"""Run the ranks of a training as processes, by torch.distributed.run, and bring back what came of it.

torchrun starts the ranks, lets several machines find each other, and when a rank dies starts all of them again, which
then go on from the last checkpoint. It runs in the same way for one rank as for many.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from headrace.child_process import ending_with_parent
from headrace.core.errors import UserError
from headrace.logs import event
from headrace.training.ranks.job import Job, Outcome, outcome_uri, read_outcome
from headrace.training.ranks.output import Output, lines

GRACE_S = 10.0

_LOOPBACK = "127.0.0.1"

_ENVIRONMENT = {
    # Ranks compute in their own threads; a library's pool beside them would take the cores that other ranks use.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # One store for all restarts would hand the addresses of the dead to the living (pytorch issue 135712).
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


class TrainingFailedError(UserError):
    """A training that came to no end; the message has the ranks' own reason."""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """One training on several machines: this is machine ``number`` of ``count``, counted from 0.

    Each calls :func:`launch` with the same job, whose URIs all of them reach. ``endpoint`` is the host:port where
    machine 0 waits for the others, ``address`` this machine's own IP address, by which the others reach it. The
    machines have to trust each other and their network: gloo asks nobody who he is.
    """

    count: int
    number: int
    endpoint: str
    address: str


async def launch(
    job: Job,
    *,
    ranks: int,
    program: Sequence[str],
    environ: Mapping[str, str],
    folder: Path,
    nodes: Nodes | None = None,
    restarts: int = 3,
    on_event: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> Outcome:
    """Train ``job`` with ``ranks`` processes on this machine and return the outcome.

    ``program`` is a module with its arguments, to which ``rank JOBFILE`` is added: ``headrace --set ...``.
    ``environ`` is what the ranks get of the environment. ``folder`` gets the job's file and the ranks' log, which
    only their owner can read and which are left there only when they fail. A rank that dies makes all start again,
    ``restarts`` times at most. ``on_event`` is told of each event that a rank logs. A call that is cancelled ends the
    ranks, in GRACE_S seconds at the latest. Raises TrainingFailedError.
    """
    job_file, log = folder / f"{job.id}.json", folder / f"{job.id}.log"
    await asyncio.to_thread(_write, job_file, msgspec.json.encode(job))
    address = _LOOPBACK if nodes is None else nodes.address
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent((sys.executable, "-m", "torch.distributed.run")),
        *(f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", f"--local-addr={address}"),
        *("--rdzv-backend=c10d", f"--rdzv-id={job.id}", *_meeting(nodes)),
        *("-m", *program, "rank", str(job_file)),
        # Left alone, gloo takes the interface that the host's name leads to, which is often the loopback.
        env={**environ, **_ENVIRONMENT, "GLOO_SOCKET_IFNAME": _interface(address)},
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,  # keeps the terminal's Ctrl-C for us to act on
    )
    event("training.launched", training=job.id, pid=process.pid, ranks=ranks)
    try:
        why = await _follow(process, log, on_event, end_on_lasting=nodes is None)
    finally:
        await _end(process)
    if process.returncode != 0:
        raise TrainingFailedError(f"Training {job.id} failed: {why}\nThe log of its ranks is {log}")
    outcome = await asyncio.to_thread(_outcome, job)
    # Of a training that went well there is nothing to look up in them.
    for file in (job_file, log):
        await asyncio.to_thread(file.unlink, missing_ok=True)
    return outcome


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", opener=_for_its_owner) as file:
        file.write(data)


def _appended(path: Path) -> BinaryIO:
    return open(path, "ab", opener=_for_its_owner)


def _for_its_owner(path: str, flags: int) -> int:
    """Open without following a link: who guesses the name in a shared folder must not choose what is written to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _meeting(nodes: Nodes | None) -> list[str]:
    """How the machines find each other. Which one waits is said, since torchrun would guess it from hosts' names."""
    if nodes is None:
        return ["--nnodes=1", f"--rdzv-endpoint={_LOOPBACK}:0"]
    waits = "true" if nodes.number == 0 else "false"
    return [f"--nnodes={nodes.count}", f"--rdzv-endpoint={nodes.endpoint}", f"--rdzv-conf=is_host={waits}"]


def _interface(address: str) -> str:
    """The network interface that has ``address``. Raises TrainingFailedError when none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return name
    raise TrainingFailedError(
        f"No network interface of this machine has the address {address}; `ip address` lists them"
    )


async def _follow(
    process: Process, log: Path, on_event: Callable[[Mapping[str, Any]], None], *, end_on_lasting: bool
) -> str:
    """Read to its end what the ranks write, and return why they ended, should they have failed.

    With ``end_on_lasting`` a reason that lasts ends them. Other machines could not be told, so there the restarts run
    out instead, on all of them.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    output = Output()
    with await asyncio.to_thread(_appended, log) as file:
        async for line in lines(process.stdout):
            file.write(line + b"\n")
            said = output.take(line)
            if said is not None:
                on_event(said)
            if output.lasting and end_on_lasting and process.returncode is None:
                # Once: torchrun is ending its ranks then, and a second signal would stop it in the middle of that.
                end_on_lasting = False
                process.terminate()
    await process.wait()
    return output.why()


async def _end(process: Process) -> None:
    """End torchrun, which ends its ranks; killed itself, it takes them along, as they die with their parent."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _outcome(job: Job) -> Outcome:
    uri = outcome_uri(job)
    try:
        outcome = read_outcome(job)
    except msgspec.DecodeError as error:
        raise TrainingFailedError(f"Training {job.id}: {uri} is no outcome of a training ({error})") from error
    if outcome is None:
        raise TrainingFailedError(f"Training {job.id} ended without its outcome, {uri}")
    return outcome
