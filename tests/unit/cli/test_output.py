import io
import sys
import unicodedata

import pytest
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace import cli
from headrace.commands.common import say
from headrace.commands.output import Terminal
from headrace.core.errors import UserError
from headrace.core.printable import printable
from headrace.kafka.interface import KafkaError

SHAPELESS = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]
HOSTILE = ("a\x1b[2Jb", "a\x9b31mb", "a\u202eb", "a\u2066b", "a\u2028b", "[red]b[/red]", "[/b]", "[link=x:y]b[/link]")


def shown(*parts: object, **options: object) -> str:
    stream = io.StringIO()
    Terminal(file=stream, width=4000, **options).print(*parts)
    return stream.getvalue()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_label_or_an_id_stands_in_a_table_as_it_is_and_the_terminal_obeys_nothing(hostile: str) -> None:
    table = Table(hostile, title=hostile, caption=hostile, min_width=200)
    table.add_column(Text(hostile))
    table.add_row(hostile, Text(hostile))
    found = shown(hostile, Group(table, Panel(hostile)), color_system=None)
    assert not (set(found) - {"\n"}) & set(SHAPELESS)
    # As a line, a title, a caption, a heading twice, a cell twice, and in a panel.
    assert found.count(printable(hostile)) == 8


def test_no_character_without_a_shape_comes_through() -> None:
    every = "".join(one for one in SHAPELESS if one not in "\n\t")
    assert not set(shown(every, Text(every), color_system=None)) & set(every)


def test_styles_of_our_own_still_come_through() -> None:
    found = shown(Text("a", style="bold"), force_terminal=True, color_system="standard")
    assert found == "\x1b[1ma\x1b[0m\n"


def test_lines_keep_their_breaks_and_lose_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\n\tb\x1b[2J\x85\u202e")
    assert capsys.readouterr().out == "a\n\tb\\u001b[2J\\u0085\\u202e\n"


@pytest.mark.parametrize("error", [UserError, KafkaError])
def test_the_message_of_an_error_is_made_printable(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("the version is v\u202e1\x1b[2J\nand what to do")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["headrace"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "headrace: the version is v\\u202e1\\u001b[2J\nheadrace: and what to do\n"
