"""What all commands of both programs have in common: -h, --version, --log-level, and flags that are shown as flags."""

import itertools
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import headrace
from headrace import cli
from headrace.lazy_commands import HELP_NAMES, mount
from headrace_load import cli as load_cli

ROOT = Path(__file__).parents[3]
PROGRAMS: list[tuple[str, Callable[[], None]]] = [("headrace", cli.main), ("headrace-load", load_cli.main)]


def leaves() -> Iterator[tuple[str, ...]]:
    """The arguments that name each command of both programs, with the program's name first."""

    def below(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield names
        for name, one in getattr(command, "commands", {}).items():
            yield from below(one, (*names, name))

    for program, table in (("headrace", cli.COMMANDS), ("headrace-load", load_cli.TABLE)):
        yield (program,)
        for name in table:
            yield from below(mount(table, name), (program, name))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as ended:
        dict(PROGRAMS)[arguments[0]]()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("names", list(leaves()), ids=" ".join)
def test_every_command_explains_itself_by_h_too_and_shows_flags_as_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, *names, "-h") == 0
    shown = capsys.readouterr().out
    assert run(monkeypatch, *names, "--help") == 0
    assert capsys.readouterr().out == shown
    assert "--help" in shown
    assert "bool" not in shown.lower()
    assert max(map(len, shown.splitlines())) <= 80
    description = [line.strip() for line in shown.partition("╭")[0].splitlines()]
    for line, after in itertools.pairwise(description):
        if line and after:
            assert len(f"{line} {after.split()[0]}") > 78, "a line ends only where no further word fits"


@pytest.mark.parametrize(("program", "main"), PROGRAMS)
def test_each_program_says_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, main: Callable[[], None]
) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(monkeypatch, program, "--version") == 0
    assert capsys.readouterr().out == f"{program} {version}\n"
    assert headrace.__version__ == version


def test_the_package_has_no_attribute_that_was_not_made() -> None:
    assert not hasattr(headrace, "__versions__")


@pytest.mark.parametrize(
    "arguments",
    [("--log-level", "debug", "config", "show"), ("config", "show", "--log-level", "debug")],
)
def test_the_log_level_is_given_before_a_command_or_behind_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_LOG__LEVEL", "error")
    assert run(monkeypatch, "headrace", *arguments) == 0
    level = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("log.level"))
    assert level.split() == ["log.level", "debug", "--log-level"]


@pytest.mark.parametrize("arguments", [("--log-level", "loud", "config", "show"), ("tail", "--log-level", "loud")])
def test_a_level_that_there_is_not_ends_with_2_and_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(monkeypatch, "headrace", *arguments) == 2
    assert "'warning'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["worker", "tail"])
def test_a_start_that_is_none_ends_with_2_before_anything_is_connected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, "headrace", command, "--from", "banana") == 2
    said = capsys.readouterr().err
    assert "'banana'" in said
    assert "earliest, latest, or a time" in said
    assert said.count("\n") == 1


def test_the_options_of_every_command_are_given_once() -> None:
    command = mount(cli.COMMANDS, "tail", cli.everywhere)
    names = [
        name for one in command.get_params(typer.Context(command, help_option_names=HELP_NAMES)) for name in one.opts
    ]
    assert names.count("--log-level") == 1
