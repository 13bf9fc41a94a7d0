"""Common parts of the commands: options of the command line, what they become, and the exit codes of errors.

An error that is not listed here is a fault of the harness itself.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from aiokafka.errors import KafkaError as AioKafkaError
from rich.console import Console

from headrace.client import KafkaError
from headrace.files.output import OutputError, check_output_folder
from headrace.process.children import ProgramError
from headrace.security.private_folder import NoFolderError
from headrace_load.contender import Contender, ContenderError, read_contender
from headrace_load.measure.processes import MeasuringError
from headrace_load.result import ResultError
from headrace_load.runner import Runner
from headrace_load.target import BrokerKind, KafkaSettingsError, TargetError, TargetOptions, open_target
from headrace_load.workload.recording import RecordingError
from headrace_load.workload.spec import FileTexts, MadeTexts, WorkloadError

USAGE = (ContenderError, WorkloadError, TargetError, KafkaSettingsError, ResultError, OutputError, FileExistsError)
FAILED = (ProgramError, MeasuringError, NoFolderError, RecordingError, KafkaError, AioKafkaError, OSError, TimeoutError)


def exit_code(error: Exception) -> int | None:
    """2 for an error in the usage, 1 for a failure, None for an unexpected error. For a group, the highest of all."""
    if isinstance(error, ExceptionGroup):
        codes = [exit_code(one) for one in error.exceptions]
        return None if None in codes else max(code for code in codes if code is not None)
    if isinstance(error, USAGE):
        return 2
    return 1 if isinstance(error, FAILED) else None


def message_of(error: Exception) -> str:
    """The text that people see of an error: its message and notes, a line each. For a group, those of all its
    errors.
    """
    if isinstance(error, ExceptionGroup):
        return "\n".join(dict.fromkeys(message_of(one) for one in error.exceptions))
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


RESULTS = Path("load-results")
PIPE_WIDTH = 160

FILE: dict[str, Any] = {"exists": True, "dir_okay": False}
"""Arguments of typer for an option or argument that is a file to read."""

Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where results go. By default load-results/TIME-NAME.")
]
OneContender = Annotated[
    Path | None,
    typer.Option("--contender", metavar="FILE", **FILE, help="What answers; by default the workers that run there."),
]
WorkloadFile = Annotated[Path, typer.Argument(metavar="WORKLOAD", **FILE, help="A workload's TOML file.")]
TextsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", **FILE, help="JSON lines with a field text. By default texts are made."),
]


_TARGET_OPTIONS: dict[str, Any] = {
    "bootstrap": Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The Kafka cluster. By default 127.0.0.1:9092.")
    ],
    "broker": Annotated[
        BrokerKind | None, typer.Option(help="Start a broker for this command; apache needs Java 17 and Maven.")
    ],
    "prefix": Annotated[
        str | None,
        typer.Option(help="The prefix of topic names: of existing topics, or of a contender's."),
    ],
    "sets": Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="kafka.NAME=VALUE", help="A setting, as of the headrace command. May be repeated."
        ),
    ],
    "metrics": Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="/metrics of a worker that runs already, for the stages. May be repeated."),
    ],
    "worker_pids": Annotated[
        list[int] | None,
        typer.Option(
            "--worker-pid", metavar="PID", help="A worker that runs on this machine already. May be repeated."
        ),
    ],
    "broker_pids": Annotated[
        list[int] | None,
        typer.Option(
            "--broker-pid", metavar="PID", help="A broker that runs on this machine already. May be repeated."
        ),
    ],
    "partitions": Annotated[
        int | None, typer.Option(min=1, help="Partitions of the topics that a contender gets.", show_default="4")
    ],
}
"""Options of the command line for the fields of TargetOptions."""

EXISTING = ("bootstrap", "prefix", "sets")
OWN_TOPICS = ("bootstrap", "broker", "prefix", "sets", "partitions")
ANY = tuple(_TARGET_OPTIONS)


def takes_target(names: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options ``names`` of a target. It gets them as its argument ``target``, a TargetOptions."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_TARGET_OPTIONS[name])
            for name in names
        ]
        shown = [one for name in own for one in (added if name == "target" else (own[name],))]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {name: value for name in names if (value := given.pop(name)) is not None}
            command(target=msgspec.convert(chosen, TargetOptions), **given)

        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in shown}
        return run

    return decorated


def texts_of(path: Path | None) -> FileTexts | MadeTexts:
    """The texts of a file, or made ones."""
    return MadeTexts() if path is None else FileTexts(path=str(path.resolve()))


def console() -> Console:
    """The console for tables: a terminal has its own width, a pipe is so wide that no cell is cut."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def contender_of(path: Path | None, target: TargetOptions) -> Contender | None:
    """The contender of a file. Raises ContenderError if nothing would answer."""
    if path is not None:
        return read_contender(path)
    if target.broker is not None:
        raise ContenderError("on a broker that is only started now nobody answers yet: give --contender FILE")
    return None


def contenders_of(paths: Sequence[Path]) -> dict[str, Contender]:
    """The contenders of files by their names. Raises ContenderError when two have one name."""
    found: dict[str, Contender] = {}
    for path in paths:
        contender = read_contender(path)
        if contender.name in found:
            raise ContenderError(f"{path}: two contenders are named {contender.name!r}; give each a name of its own")
        found[contender.name] = contender
    return found


def folder_for(out: Path | None, name: str) -> Path:
    """A new folder for the results of a run, checked before it begins.

    Raises FileExistsError when there is one with something in it, and OutputError when nothing can be written there.
    """
    folder = out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"
    check_output_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: results go into a folder of their own (--out)")
    return folder


@asynccontextmanager
async def runner(options: TargetOptions, folder: Path, to: Console) -> AsyncIterator[Runner]:
    """Find or start the cluster, for runs there. Raises what :func:`headrace_load.target.open_target` raises."""
    async with open_target(options, os.environ, folder) as found:
        yield Runner(target=found, folder=folder, console=to)


def run_to_exit(work: Coroutine[Any, Any, bool]) -> None:
    """Run a command's work; the exit code is 1 when it returns that its figures don't stand."""
    if not asyncio.run(work):
        raise typer.Exit(1)
