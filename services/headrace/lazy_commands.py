"""A group of commands whose modules are imported when they run, so that the overview is quick.

What all commands have in common is added here: `-h`, help that flows at any width, flags that are shown as flags, and
the options that a group gives to each of its commands.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import headrace
from headrace.core.errors import StoppedError, notes_behind


class Mounted(NamedTuple):
    """Where a command is (a function or a typer app) and what the overview says of it, unless it is hidden there."""

    target: str
    summary: str
    hidden: bool = False


LARGEST = 2**31
"""No count, size or time that a command takes comes near it."""

HELP_NAMES = ["-h", "--help"]
HELP = {"help_option_names": HELP_NAMES}
"""The settings of a command line's typer app, and by it those of all its commands."""


def lazy_group(table: Mapping[str, Mounted], everywhere: Callable[..., None] | None = None) -> type[TyperGroup]:
    """The class of a group that lists the commands of ``table`` and imports one when it is about to run.

    Every command takes the options of ``everywhere`` too, a function that typer could run. They act by their callbacks,
    and the command does not see them.
    """

    class LazyGroup(TyperGroup):
        def get_params(self, ctx: Any) -> list[Any]:
            return as_flags(super().get_params(ctx))

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                # typer would end with 130 and without a word.
                raise StoppedError(signal.SIGINT, notes_behind(interrupt)) from interrupt

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
            mounted = table.get(cmd_name)
            return None if mounted is None else TyperCommand(cmd_name, help=mounted.summary, hidden=mounted.hidden)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args[0] not in table and (near := get_close_matches(args[0], table, n=1)):
                ctx.fail(f"There is no command {args[0]!r}. Did you mean {near[0]!r}?")
            name, command, rest = super().resolve_command(ctx, args)
            return name, None if command is None else mount(table, str(name), everywhere), rest

    return LazyGroup


def mount(table: Mapping[str, Mounted], name: str, everywhere: Callable[..., None] | None = None) -> Any:
    """Import the command ``name`` of ``table``, with the options of ``everywhere``."""
    module, _, attribute = table[name].target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command(name)(function)
    command = get_command(found)
    shared = [] if everywhere is None else options_of(everywhere)
    for one in _tree(command):
        one.help = _flowing(one.help or "")
        if not isinstance(one, TyperGroup):
            one.params += shared
        for option in one.params:
            _within_reason(option)
        as_flags(one.get_params(typer.Context(one, help_option_names=HELP_NAMES)))
    return command


def _flowing(text: str) -> str:
    """``text`` with a line for each paragraph: typer would keep the line ends of a docstring, for a terminal of 120."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _within_reason(option: Any) -> None:
    """Refuse what no command can use as a number: not-a-number, infinities, more digits than 64 bits hold."""
    inner = option.callback

    def checked(ctx: Any, param: Any, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise typer.BadParameter(f"{value} is no number that can be used here.", ctx=ctx, param=param)
        if isinstance(value, int | float) and abs(value) >= LARGEST:
            raise typer.BadParameter(f"{value:.6g} is too large.", ctx=ctx, param=param)
        return value if inner is None else inner(ctx, param, value)

    option.callback = checked


def options_of(function: Callable[..., None]) -> list[Any]:
    """The options that typer makes of a function's parameters."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return list(get_command(app).params)


def version_of(program: str) -> Callable[[bool], None]:
    """The callback of the option --version."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {headrace.__version__}")
            raise typer.Exit

    return show


def as_flags(params: list[Any]) -> list[Any]:
    """Let the flags among ``params`` be shown as what they are: they take no value, and typer would write <bool>."""
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return params


def _tree(command: Any) -> Iterable[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _tree(below)
