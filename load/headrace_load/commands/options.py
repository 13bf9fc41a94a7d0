"""Options that several commands share, and what they become."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace.files.output import check_output_folder
from headrace_load.comparison import Runner
from headrace_load.contender import Contender, ContenderError, read_contender
from headrace_load.place import Asked, BrokerKind, place
from headrace_load.workload.spec import FileTexts, MadeTexts

RESULTS = Path("load-results")
PIPE_WIDTH = 160

Bootstrap = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The Kafka cluster. By default 127.0.0.1:9092.")
]
Broker = Annotated[
    BrokerKind | None, typer.Option(help="Start a broker for this command; apache needs Java 17 and Maven.")
]
Prefix = Annotated[
    str | None,
    typer.Option(help="What topics' names begin with: those that are there, or those that a contender gets."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="kafka.NAME=VALUE", help="A setting, as of the headrace command. May be repeated."),
]
Partitions = Annotated[int, typer.Option(min=1, help="Partitions of the topics that a contender gets.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where results go. By default load-results/TIME-NAME.")
]
OneContender = Annotated[
    Path | None,
    typer.Option(
        "--contender", metavar="FILE", exists=True, dir_okay=False, help="What answers; else what runs there already."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="/metrics of a worker that runs already, for the stages. May be repeated."),
]
WorkerPids = Annotated[
    list[int] | None,
    typer.Option("--worker-pid", metavar="PID", help="A worker that runs on this machine already. May be repeated."),
]
BrokerPids = Annotated[
    list[int] | None,
    typer.Option("--broker-pid", metavar="PID", help="A broker that runs on this machine already. May be repeated."),
]
WorkloadFile = Annotated[
    Path, typer.Argument(metavar="WORKLOAD", exists=True, dir_okay=False, help="A workload's TOML file.")
]


TextsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False, help="JSON lines with a field text. By default they are made."
    ),
]


def asked(
    bootstrap: str | None,
    prefix: str | None,
    sets: list[str] | None,
    *,
    broker: BrokerKind | None = None,
    metrics: list[str] | None = None,
    worker_pids: list[int] | None = None,
    broker_pids: list[int] | None = None,
    partitions: int = 4,
) -> Asked:
    """Where to run, of a command's options as typer gives them."""
    return Asked(
        bootstrap=bootstrap,
        broker=broker,
        prefix=prefix,
        sets=tuple(sets or ()),
        metrics=tuple(metrics or ()),
        worker_pids=tuple(worker_pids or ()),
        broker_pids=tuple(broker_pids or ()),
        partitions=partitions,
    )


def texts_of(path: Path | None) -> FileTexts | MadeTexts:
    """The texts of a file, or made ones."""
    return MadeTexts() if path is None else FileTexts(path=str(path.resolve()))


def console() -> Console:
    """Where tables go: a terminal at its own width, a pipe so wide that no cell is cut."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def contender_of(path: Path | None, asked: Asked) -> Contender | None:
    """The contender of a file. Raises ContenderError where nothing would answer."""
    if path is not None:
        return read_contender(path)
    if asked.broker is not None:
        raise ContenderError("on a broker that is only started now nobody answers yet: give --contender FILE")
    return None


def several(paths: Sequence[Path]) -> dict[str, Contender]:
    """The contenders of files by their names. Raises ContenderError when two have one name."""
    found: dict[str, Contender] = {}
    for path in paths:
        contender = read_contender(path)
        if contender.name in found:
            raise ContenderError(f"{path}: two contenders are named {contender.name!r}; give each a name of its own")
        found[contender.name] = contender
    return found


def folder_for(out: Path | None, name: str) -> Path:
    """A new folder for results, looked at before the run whose they are.

    Raises FileExistsError when there is one with something in it, and OutputError when nothing can be written there.
    """
    folder = out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"
    check_output_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: results go into a folder of their own (--out)")
    return folder


@asynccontextmanager
async def runner(asked: Asked, folder: Path, to: Console) -> AsyncIterator[Runner]:
    """What runs at the place that was asked for. Raises what :func:`headrace_load.place.place` raises."""
    async with place(asked, os.environ, folder) as found:
        yield Runner(place=found, folder=folder, console=to)


def ended(work: Callable[[], Awaitable[bool]]) -> None:
    """Run a command's work; the exit code is 1 when it says that its figures don't stand."""

    async def whole() -> bool:
        return await work()

    if not asyncio.run(whole()):
        raise typer.Exit(1)
