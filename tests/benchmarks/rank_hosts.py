"""One training on several hosts: network namespaces with a cable each to one switch, a rank on each. Linux, as root.

    python tests/benchmarks/rank_hosts.py TRAIN.jsonl [--epochs 3] [--hosts 4] [--rate 1gbit]

Three trainings with the same rows and recipe: all ranks on one host, one on each host, and that once more where the
rank that writes the checkpoints is killed after the first epoch. All three must end with equal artifacts. A host has no
way to the others but its cable, which passes ``--rate`` in each direction, so the figures are of real sockets and of a
real bandwidth, though of no real distance. All hosts share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Column, Table

from headrace.commands.trainer import allowing
from headrace.learning.distributed.job import FileSource, Job, Outcome
from headrace.learning.distributed.launch import Nodes, launch
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.places import places_of
from headrace.security.private_folder import PrivateFolder

NETWORK = "10.213.7"


def address_of(number: int) -> str:
    """The address of a host."""
    return f"{NETWORK}.{number + 1}"


ENDPOINT = f"{address_of(0)}:29400"


@contextmanager
def hosts_at_a_switch(count: int, rate: str | None) -> Iterator[list[str]]:
    """The names of ``count`` network namespaces, each with a cable of this ``rate`` to a switch, gone again afterwards.

    The switch is a bridge in a namespace of its own.
    """
    base = f"headrace-{os.getpid()}"
    switch, names = f"{base}-switch", [f"{base}-{number}" for number in range(count)]
    for name in (switch, *names):
        ip("netns", "add", name)
    try:
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "cable", "netns", name)
            ip("-n", switch, "link", "set", port, "master", "bridge")
            ip("-n", name, "address", "add", f"{address_of(number)}/24", "dev", "cable")
            for place, device in ((switch, port), (name, "cable"), (name, "lo")):
                ip("-n", place, "link", "set", device, "up")
            if rate is not None:
                for place, device in ((switch, port), (name, "cable")):
                    shaper = ("root", "tbf", "rate", rate, "burst", "256k", "latency", "50ms")
                    ip("netns", "exec", place, "tc", "qdisc", "add", "dev", device, *shaper)
        yield names
    finally:
        for name in (*names, switch):
            ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def take_part(job: Job, hosts: int, number: int | None, folder: Path, *, kill: bool = False) -> Outcome:
    """One host's share of ``job``; without a ``number`` the ranks of all. With ``kill`` one dies after the first
    epoch.
    """
    pids: list[int] = []

    def watch(said: Mapping[str, Any]) -> None:
        if said["event"] == "rank.started":
            pids.append(said["pid"])
        if kill and said["event"] == "training.epoch" and said["number"] == 1:
            os.kill(pids[0], signal.SIGKILL)

    nodes = None
    if number is not None:
        nodes = Nodes(count=hosts, number=number, endpoint=ENDPOINT, address=address_of(number))
    places = places_of((job.checkpoints, job.out))
    outcome = await launch(
        job,
        ranks=hosts if nodes is None else 1,
        program=("headrace", "--set", allowing(places)),
        environ=os.environ,
        folder=PrivateFolder(folder),
        places=places,
        nodes=nodes,
        on_event=watch,
    )
    if kill and len(pids) != 2:
        raise SystemExit(f"The rank was to be killed and started again, and was started {len(pids)} times")
    return outcome


def run_hosts(job: Job, folder: Path, names: list[str], *, kill: bool) -> Outcome:
    """Start this program once on each host and take the outcome of the first."""
    job_file = folder / "job.json"
    job_file.write_bytes(msgspec.json.encode(job))
    hosts = []
    for number, name in enumerate(names):
        command = [
            sys.executable,
            __file__,
            str(job_file),
            "--host",
            str(number),
            "--hosts",
            str(len(names)),
            *(["--kill"] * (kill and number == 0)),
        ]
        hosts.append(subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=subprocess.PIPE))
    outputs = [host.communicate()[0] for host in hosts]
    for host in hosts:
        if host.returncode != 0:
            raise SystemExit(f"A host failed; its log is in {folder}")
    return msgspec.json.decode(outputs[0], type=Outcome)


def compare(data: Path, epochs: int, count: int, rate: str | None, console: Console) -> None:
    recipe = Recipe()
    recipe = msgspec.structs.replace(recipe, convolution=msgspec.structs.replace(recipe.convolution, epochs=epochs))
    base = Path(tempfile.mkdtemp(prefix="rank-hosts-"))
    table = Table(Column("training", no_wrap=True), "seconds", "in the last ranks", "test accuracy", "sha256", box=None)
    found: list[str] = []
    with hosts_at_a_switch(count, rate) as names:
        for title, hosts, kill in (
            (f"{count} ranks, one host", None, False),
            (f"{count} hosts, a rank each", names, False),
            (f"{count} hosts, rank 0 killed", names, True),
        ):
            folder = base / str(len(found))
            folder.mkdir()
            job = Job(
                id=f"hosts-{len(found)}",
                source=FileSource(data=str(data.resolve())),
                recipe=recipe,
                checkpoints=str(folder / "checkpoints"),
                out=str(folder / "artifacts"),
            )
            begun = time.monotonic()
            if hosts is None:
                outcome = asyncio.run(take_part(job, count, None, folder))
            else:
                outcome = run_hosts(job, folder, hosts, kill=kill)
            found.append(outcome.sha256)
            seconds = f"{time.monotonic() - begun:.1f}"
            table.add_row(
                title, seconds, f"{outcome.seconds:.1f}", f"{outcome.report.accuracy:.2%}", outcome.sha256[:16]
            )
    console.print(table)
    if len(set(found)) > 1:
        raise SystemExit("The artifacts differ")
    console.print("equal artifacts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled texts (with --host: the job)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", help="of each cable, as tc says it; by default as fast as it goes")
    parser.add_argument("--host", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.host is None:
        compare(given.data, given.epochs, given.hosts, given.rate, Console())
        return
    folder = given.data.parent / f"host-{given.host}"
    job = msgspec.json.decode(given.data.read_bytes(), type=Job)
    outcome = asyncio.run(take_part(job, given.hosts, given.host, folder, kill=given.kill))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
