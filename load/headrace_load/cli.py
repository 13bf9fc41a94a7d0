"""The command line. A command's module is imported when the command runs, so `headrace-load --help` is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from headrace.lazy_commands import HELP, Mounted, lazy_group, version_of
from headrace.process import logs
from headrace.security.private_folder import keep_what_matplotlib_caches

TABLE = {
    "run": Mounted("headrace_load.commands.run:run", "One run of a workload."),
    "drain": Mounted("headrace_load.commands.compare:drain", "Empty a backlog, contenders in turn."),
    "sweep": Mounted("headrace_load.commands.sweep:sweep", "The highest rate that keeps p99 under a bound."),
    "soak": Mounted("headrace_load.commands.run:soak", "One long run: does memory grow, does latency drift?"),
    "compare": Mounted(
        "headrace_load.commands.compare:compare", "Contenders in turn, and how sure their differences are."
    ),
    "swap": Mounted("headrace_load.commands.swap:swap", "Move an alias under load, and look at the waits beside it."),
    "record": Mounted("headrace_load.commands.record:record", "Make a workload from a live topic."),
    "report": Mounted("headrace_load.commands.record:report", "Make the page and the pictures of a result again."),
}


app = typer.Typer(
    cls=lazy_group(TABLE),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)


@app.callback()
def headrace_load(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=version_of("headrace-load"), help="Show the version."),
    ] = False,
) -> None:
    """Load a classifier on Kafka, open loop, and audit every answer."""


def main() -> None:
    """Run the command line; the exit code is 2 for wrong usage, 1 for a failure or figures that don't stand."""
    logs.configure(sys.stderr, level="warning")
    keep_what_matplotlib_caches(os.environ)
    try:
        app()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("headrace"):
            raise
        _end(f"This needs {error.name}, which is not installed. Install it by: pip install 'headrace[load]'", 1)
    except Exception as error:
        # Imported where it is needed: what it names loads numpy and aiokafka.
        from headrace_load.commands.options import exit_code, message_of  # noqa: PLC0415

        code = exit_code(error)
        if code is None:
            raise
        _end(message_of(error), code)


def _end(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"headrace-load: {line}", err=True)
    sys.exit(code)
