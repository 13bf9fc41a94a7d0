"""A group of commands whose modules are imported when they run, so that the overview is quick."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Mounted(NamedTuple):
    """Where a command is (a function or a typer app) and what the overview says of it, unless it is hidden there."""

    target: str
    summary: str
    hidden: bool = False


def lazy_group(table: Mapping[str, Mounted]) -> type[TyperGroup]:
    """The class of a group that lists the commands of ``table`` and imports one when it is about to run."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
            mounted = table.get(cmd_name)
            return None if mounted is None else TyperCommand(cmd_name, help=mounted.summary, hidden=mounted.hidden)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args[0] not in table and (near := get_close_matches(args[0], table, n=1)):
                ctx.fail(f"There is no command {args[0]!r}. Did you mean {near[0]!r}?")
            name, command, rest = super().resolve_command(ctx, args)
            return name, None if command is None else mount(table, str(name)), rest

    return LazyGroup


def mount(table: Mapping[str, Mounted], name: str) -> Any:
    """Import the command ``name`` of ``table``."""
    module, _, attribute = table[name].target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command(name)(function)
    return get_command(found)
