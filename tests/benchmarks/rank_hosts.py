"""One training on two hosts: two network namespaces joined by a virtual cable, a rank on each. Linux, as root.

    python tests/benchmarks/rank_hosts.py TRAIN.jsonl [--epochs 3]

Three trainings with the same rows and recipe: two ranks on one host, two hosts, and two hosts where the rank that
writes the checkpoints is killed after the first epoch. All three must end with equal artifacts. A host has no way to
the other but the cable, so the figures are of real sockets, though of no real distance.
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

ADDRESSES = ("10.213.7.1", "10.213.7.2")
ENDPOINT = f"{ADDRESSES[0]}:29400"


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """The names of two network namespaces with a cable between them, gone again afterwards."""
    names = [f"headrace-{os.getpid()}-{end}" for end in "ab"]
    cables = [f"hr{os.getpid()}{end}" for end in "ab"]
    for name in names:
        ip("netns", "add", name)
    try:
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
            for device in (cable, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def take_part(job: Job, number: int | None, folder: Path, *, kill: bool = False) -> Outcome:
    """One host's share of ``job``; without a ``number`` both ranks. With ``kill`` a rank dies after the first epoch."""
    pids: list[int] = []

    def watch(said: Mapping[str, Any]) -> None:
        if said["event"] == "rank.started":
            pids.append(said["pid"])
        if kill and said["event"] == "training.epoch" and said["number"] == 1:
            os.kill(pids[0], signal.SIGKILL)

    nodes = None if number is None else Nodes(count=2, number=number, endpoint=ENDPOINT, address=ADDRESSES[number])
    places = places_of((job.checkpoints, job.out))
    outcome = await launch(
        job,
        ranks=2 if nodes is None else 1,
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
            *(["--kill"] * (kill and number == 0)),
        ]
        hosts.append(subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=subprocess.PIPE))
    outputs = [host.communicate()[0] for host in hosts]
    for host in hosts:
        if host.returncode != 0:
            raise SystemExit(f"A host failed; its log is in {folder}")
    return msgspec.json.decode(outputs[0], type=Outcome)


def compare(data: Path, epochs: int, console: Console) -> None:
    recipe = Recipe()
    recipe = msgspec.structs.replace(recipe, convolution=msgspec.structs.replace(recipe.convolution, epochs=epochs))
    base = Path(tempfile.mkdtemp(prefix="rank-hosts-"))
    table = Table(Column("training", no_wrap=True), "seconds", "in the last ranks", "test accuracy", "sha256", box=None)
    found: list[str] = []
    with two_hosts() as names:
        for title, hosts, kill in (
            ("two ranks, one host", None, False),
            ("two hosts, a rank each", names, False),
            ("two hosts, rank 0 killed", names, True),
        ):
            folder = base / title.replace(" ", "-")
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
                outcome = asyncio.run(take_part(job, None, folder))
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
    parser.add_argument("--host", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.host is None:
        compare(given.data, given.epochs, Console())
        return
    folder = given.data.parent / f"host-{given.host}"
    job = msgspec.json.decode(given.data.read_bytes(), type=Job)
    outcome = asyncio.run(take_part(job, given.host, folder, kill=given.kill))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
