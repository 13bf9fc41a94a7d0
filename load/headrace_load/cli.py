"""The command line. A command's module is imported when the command runs, so `headrace-load --help` is quick."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

COMMANDS = "headrace_load.commands"


class Mounted(NamedTuple):
    """Where a command's function is, and what the overview says of it."""

    target: str
    summary: str


TABLE = {
    "run": Mounted("run:run", "One run of a workload."),
    "drain": Mounted("comparing:drain", "Empty a backlog, contenders in turn."),
    "sweep": Mounted("sweep:sweep", "The highest rate that keeps p99 under a bound."),
    "soak": Mounted("soak:soak", "One long run: does memory grow, does latency drift?"),
    "compare": Mounted("comparing:compare", "Contenders in turn, and how sure their differences are."),
    "swap": Mounted("swap:swap", "Move an alias under load, and look at the waits beside it."),
    "record": Mounted("record:record", "Make a workload from a live topic."),
    "report": Mounted("report:report", "Make the page and the pictures of a result again."),
}


class LazyGroup(TyperGroup):
    """Lists commands from the table; imports one when it is about to run."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return list(TABLE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        mounted = TABLE.get(cmd_name)
        return None if mounted is None else TyperCommand(cmd_name, help=mounted.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in TABLE and (near := get_close_matches(args[0], TABLE, n=1)):
            ctx.fail(f"There is no command {args[0]!r}. Did you mean {near[0]!r}?")
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None else mount(str(name)), rest


def mount(name: str) -> Any:
    """Import the command ``name`` of the table."""
    module, _, function = TABLE[name].target.partition(":")
    alone = typer.Typer(add_completion=False)
    alone.command(name)(getattr(import_module(f"{COMMANDS}.{module}"), function))
    return get_command(alone)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def headrace_load() -> None:
    """Load a classifier on Kafka, open loop, and audit every answer."""


def main() -> None:
    """Run the command line; the exit code is 2 for wrong usage, 1 for a failure or figures that don't stand."""
    try:
        app()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("headrace"):
            raise
        _end(f"This needs {error.name}, which is not installed. Install it by: pip install 'headrace[load]'", 1)
    except Exception as error:
        # Imported where it is needed: what it names loads numpy and aiokafka.
        from headrace_load.faults import code_of  # noqa: PLC0415

        code = code_of(error)
        if code is None:
            raise
        _end(str(error), code)


def _end(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"headrace-load: {line}", err=True)
    sys.exit(code)
