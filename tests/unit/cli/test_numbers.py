"""Numbers on the command line: what no command can use ends with 2 and words, whichever option gets it."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer._click.exceptions import UsageError

from headrace import cli
from headrace.lazy_commands import mount
from headrace_load import cli as load_cli

HOSTILE = ["nan", "inf", "-inf", "-1", "0", "80000", "100", "1e999", "9" * 5000, "-" + "9" * 30, "x", "", "1.5"]
NEVER = ["nan", "inf", "-inf", "1e999", "9" * 5000, "-" + "9" * 30, "x", ""]


def options() -> list[Any]:
    """Every option of every command that takes a number, with the words that name it."""

    def below(command: Any, names: str) -> Any:
        for one in command.params:
            kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else None
            if not getattr(one, "is_flag", False) and kind in (int, float):
                yield pytest.param(one, command, id=f"{names} {one.opts[0]}")
        for name, one in getattr(command, "commands", {}).items():
            yield from below(one, f"{names} {name}")

    found: list[Any] = []
    for table in (cli.COMMANDS, load_cli.TABLE):
        for name in table:
            found += below(mount(table, name), name)
    return found


@pytest.mark.parametrize(("option", "command"), options())
def test_an_option_refuses_numbers_that_nothing_can_use_in_words(option: Any, command: Any) -> None:
    ctx = typer.Context(command)
    for value in HOSTILE:
        refused = None
        try:
            option.process_value(ctx, value)
        except UsageError as error:
            refused = error
        assert refused is not None or value not in NEVER, f"{value!r} was taken"
        assert refused is None or (refused.exit_code == 2 and refused.format_message())


def test_there_are_options_to_try() -> None:
    assert len(options()) > 30
