"""What commands show on a terminal of 80 columns: nothing is cut that people read or copy."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from headrace import cli
from headrace.client import Answer
from headrace.commands import answers, common, local
from headrace.commands.common import say, wrapped
from headrace.commands.models.show import Section, _settings_of, tables
from headrace.commands.terminal import Terminal, report_tables, report_warnings
from headrace.core.answer_log import Hole
from headrace.core.errors import UserError
from headrace.core.text import printable
from headrace.kafka.interface import KafkaError
from headrace.learning.evaluate import compare
from headrace.registry.compacted_topics import ModelsLog
from headrace_schemas.records import ClassifyResult, ModelAlias, Status, Verdict
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock
from tests.support.versions import version_of

WIDTHS = (80, 120)
HASH = "0123456789abcdef" * 4
VERSION = "20261129T041722Z-0123456789ab"


def shown(renderables: object, width: int) -> list[str]:
    """The lines on a terminal of ``width`` columns."""
    console = Terminal(width=width)
    with console.capture() as captured:
        for one in renderables:  # type: ignore[attr-defined]
            console.print(one, soft_wrap=isinstance(one, Section))
    return [line.rstrip() for line in captured.get().splitlines()]


def fits(lines: list[str], width: int) -> bool:
    return all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [40, 60, *WIDTHS])
def test_a_list_of_models_has_whole_versions(width: int) -> None:
    log = ModelsLog(MemoryCluster(TurnedClock()), "models")
    version = version_of(VERSION, uri="file:///a/long/folder/of/somebody/" + "deeper/" * 20)
    key = (version.name, version.version)
    log.versions[key] = version
    for alias in ("champion", "challenger"):
        log.aliases[version.name, alias] = ModelAlias(
            name=version.name, alias=alias, version=VERSION, moved_at_ms=1, previous=None, pinned=True
        )
    log.verdicts[key] = Verdict(
        name=version.name, version=VERSION, promoted=False, reason="", decided_at_ms=0, checks=(), champion=None
    )
    lines = shown(tables(log, width), width)
    assert fits(lines, width)
    assert any(VERSION in line for line in lines)
    assert all(line.startswith((" ", "version", VERSION)) for line in lines)
    if width == 120:
        assert any("1970-01-01 00:00:00Z" in line for line in lines) or "created" not in lines[0]
    assert any("refused" in line for line in lines) is (width > 40)
    assert len(lines) <= 5, "a column that has no room is left out, not folded into letters"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_section_keeps_hashes_and_uris_whole_and_folds_prose(width: int) -> None:
    uri = "file:///" + "folder/" * 30
    section = Section(
        "about", (("sha256", HASH), ("weights", HASH), ("artifact", uri), ("gate", "a word or two " * 30))
    )
    lines = shown([section], width)
    assert sum(HASH in line for line in lines) == 2
    assert any(uri in line for line in lines)
    assert fits([line for line in lines if uri not in line], width)


def test_a_value_stands_below_its_name_on_a_narrow_terminal() -> None:
    lines = shown([Section("gate", (("untested-classes", "each of the 6 classes that it learnt has rows"),))], 40)
    assert lines == ["gate", "  untested-classes", "    each of the 6 classes that it learnt", "    has rows"]


@pytest.mark.parametrize("recipe", ['{"a":{"b":[2,3],"c":null},"d":0}', "steps: many", "[1]"])
def test_a_recipe_is_a_setting_a_line_and_another_trainers_stays_as_it_is(recipe: str) -> None:
    lines = list(_settings_of(recipe))
    assert lines == (["a.b = [2,3]", "a.c = null", "d = 0"] if recipe.startswith("{") else [recipe])
    assert shown([Section("trained on", (("recipe", "\n".join(lines)),))], 80)[1:] == [
        f"  {name:<10}{line}" for name, line in zip(["recipe", "", ""], lines, strict=False)
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("classes", [3, 10, 60])
def test_a_report_has_all_its_figures(width: int, classes: int) -> None:
    labels = [f"a class with rather a long name {number}" for number in range(classes)] * 30
    lines = shown(report_tables(compare(labels, [labels[-1], *labels[:-1]])), width)
    assert fits(lines, width)
    assert "…" not in "\n".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_too_few_rows_and_classes_without_rows_are_framed_and_what_has_no_figure_is_a_dash(width: int) -> None:
    learnt = {"day", "night", *(f"a class with rather a long name {number}" for number in range(30))}
    report = compare(["day"] * 9, ["day"] * 8 + ["night"], learnt=learnt)
    lines = shown((*report_tables(report), *report_warnings(report)), width)
    assert fits(lines, width)
    said = " ".join("\n".join(lines).replace("│", " ").split())
    assert "accuracy 88.89% (56.5% to 98.0%) macro-F1 94.12% (" in said
    assert "TOO FEW ROWS TO TELL" in said
    assert "9 rows tell very little: the accuracy on other texts may be anything from 57% to 98%" in said
    assert "31 learnt classes are answered, of which there is no row" in said
    assert "and 21 more" in said
    assert any(line.split() == ["night", "0.0%", "-", "-", "0"] for line in lines)
    enough = compare(["day", "night"] * 200, ["day", "night"] * 200, learnt={"day", "night"})
    assert not list(report_warnings(enough))


@pytest.mark.parametrize("width", WIDTHS)
def test_answers_as_they_come_fit_and_name_their_version(width: int) -> None:
    result = ClassifyResult(
        offset=123_456_789, after=1, crc=0, status=Status.OK, version=VERSION, label="sport", score=0.75, id="q-1" * 20
    )
    answer = Answer(
        partition=11, position=4, timestamp_ms=0, key=None, headers=(), result=result, hole=Hole(5, 123_456_788)
    )
    lines = shown([answers.table([answers.Seen(answer, "a text\nof two lines " * 20)], {"ok": 1})], width)  # type: ignore[arg-type]
    assert fits(lines, width)
    said = "\n".join(lines)
    assert all(part in said for part in (f"version {VERSION}", "11@123456789", "sport", "0.750"))


SHAPELESS = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]
HOSTILE = ("a\x1b[2Jb", "a\x9b31mb", "a\u202eb", "a\u2066b", "a\u2028b", "[red]b[/red]", "[/b]", "[link=x:y]b[/link]")


def shown_plain(*parts: object, **options: object) -> str:
    stream = io.StringIO()
    Terminal(file=stream, width=4000, **options).print(*parts)
    return stream.getvalue()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_label_or_an_id_stands_in_a_table_as_it_is_and_the_terminal_obeys_nothing(hostile: str) -> None:
    table = Table(hostile, title=hostile, caption=hostile, min_width=200)
    table.add_column(Text(hostile))
    table.add_row(hostile, Text(hostile))
    found = shown_plain(hostile, Group(table, Panel(hostile)), color_system=None)
    assert not (set(found) - {"\n"}) & set(SHAPELESS)
    # As a line, a title, a caption, a heading twice, a cell twice, and in a panel.
    assert found.count(printable(hostile)) == 8


def test_no_character_without_a_shape_comes_through() -> None:
    every = "".join(one for one in SHAPELESS if one not in "\n\t")
    assert not set(shown_plain(every, Text(every), color_system=None)) & set(every)


def test_styles_of_our_own_still_come_through() -> None:
    found = shown_plain(Text("a", style="bold"), force_terminal=True, color_system="standard")
    assert found == "\x1b[1ma\x1b[0m\n"


def words(text: str) -> list[str]:
    return text.split()


@given(st.lists(st.text("ab`漢- ", max_size=30), max_size=20).map(" ".join), st.integers(1, 60))
def test_a_sentence_is_broken_between_its_words_and_loses_none(text: str, width: int) -> None:
    lines = wrapped(text, width).split("\n")
    assert words(" ".join(lines)) == words(text)
    for line in lines:
        assert cell_len(line) <= width or len(words(line)) == 1 or "`" in line


def test_a_command_is_copied_whole_and_what_goes_on_below_is_indented_alike() -> None:
    line = "  missing (`headrace topics apply --grow` adds it), and more words"
    assert wrapped(line, 38).split("\n") == [
        "  missing",
        "  (`headrace topics apply --grow` adds",
        "  it), and more words",
    ]
    assert wrapped(line, None) == line, "a program reads lines as they are"


def test_the_message_of_an_error_is_broken_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise UserError("a message that is longer than the terminal is wide")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["headrace"])
    monkeypatch.setattr(common, "width_of", lambda stream: 30)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.splitlines() == [
        "headrace: a message that is",
        "longer than the terminal is",
        "wide",
    ]


def test_no_line_in_a_pipe_ends_with_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "text", expand=True, box=None)
    table.add_row("a", "b")
    common.console().print(table, "c")
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines] == [["name", "text"], ["a", "b"], ["c"], []]
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_predictions_are_a_row_each_and_chunks_share_their_columns(width: int) -> None:
    names, widths = ("label", "score", "text"), {}
    first = local._answer_table([{"label": "money", "score": 0.51239, "text": "a\x1b[2J text " * 30}], names, widths)
    second = local._answer_table([{"label": None, "score": 1.0, "text": "b"}], names, widths)
    lines = shown([first, second], width)
    assert fits(lines, width)
    assert [line.split()[:2] for line in lines] == [["label", "score"], ["money", "0.512"], ["(no", "label)"]]
    assert lines[1].endswith("…")
    assert "\x1b" not in lines[1]


def test_an_interrupt_that_the_terminal_echoes_stays_on_the_last_line_of_the_answers() -> None:
    console = Terminal(width=80)
    with console.capture() as captured:
        console.print(answers.table([], Counter()), end="")
    assert cell_len(captured.get().splitlines()[-1]) < 80 - len("^C"), "a full line would push ^C onto another one"


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


def test_a_label_with_a_line_break_keeps_to_its_line() -> None:
    report = compare(("two\nlines", "b"), ("two\nlines", "b"))

    assert sum("two\\u000alines" in line for line in shown(report_tables(report), 80)) == 2


@pytest.mark.parametrize("command", [["topics", "describe"], ["models", "list"], ["dead-letters", "list"], ["tail"]])
def test_what_fails_is_said_once_and_not_by_aiokafka_too(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def stop(settings: object) -> None:
        raise StopError

    for module in ("common", "topics", "answers", "dead_letters"):
        monkeypatch.setattr(f"headrace.commands.{module}.cluster_of", stop)
    theirs = logging.getLogger("aiokafka")
    monkeypatch.setattr(theirs, "level", logging.NOTSET)
    theirs.manager._clear_cache()
    assert isinstance(CliRunner().invoke(cli.app, command).exception, StopError)
    assert not theirs.isEnabledFor(logging.ERROR)
