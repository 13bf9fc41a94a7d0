"""How `headrace classify --explain` shows why a text has its label."""

from __future__ import annotations

import io

import pytest

from headrace.commands.explanation import coloured, explained
from headrace.commands.terminal import Terminal
from headrace_schemas.records import Explanation, Part

TEXT = "shares fell sharply"
WHY = Explanation(
    label="money", logit=2.0, bias=0.5, words=(Part(0, 6, 1.5, -0.5), Part(7, 11, -0.5, 0.25), Part(12, 19, 0.01)),
    pairs=(Part(0, 11, 0.25, 0.25),), rest=0.24, against="sport", against_logit=0.25, against_bias=0.25,
)  # fmt: skip


def lines(text: str, explanation: Explanation, width: int = 80) -> list[str]:
    out = io.StringIO()
    terminal = Terminal(file=out, width=width)
    for line in explained(text, explanation):
        terminal.print(line)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_strongest_parts_come_first_and_the_columns_add_up() -> None:
    shown = lines(TEXT, WHY)
    assert "why money and not sport (for, against):" in shown
    assert TEXT in shown
    rows = [line.split() for line in shown[shown.index(TEXT) + 3 :]]
    assert [row[0] for row in rows[:3]] == ["shares", "fell", "sharply"]
    *parts, logit = [float(row[-3]) for row in rows]
    assert sum(parts) == pytest.approx(logit, abs=0.03)


def test_words_are_coloured_by_what_they_add() -> None:
    text = coloured(TEXT, WHY)
    assert text.plain == TEXT
    styles = {TEXT[span.start : span.end]: span.style for span in text.spans}
    assert styles == {"shares": "bold green", "fell": "red"}


def test_a_version_of_one_label_has_no_runner_up() -> None:
    alone = Explanation(label="money", logit=1.0, bias=0.5, words=(Part(0, 6, 0.5),))
    shown = lines(TEXT, alone)
    assert "why money (for, against):" in shown
    assert shown[-1].split() == ["(logit)", "+1.00"]


def test_a_text_that_a_terminal_would_obey_is_shown_escaped_and_its_words_stay_in_place() -> None:
    text = "\x1b[31mshares\x07 fell [bold]now"
    begin = text.index("shares")
    why = Explanation(label="a\x1b[2J", logit=1.0, bias=0.0, words=(Part(begin, begin + 6, 1.0),))
    shown = "\n".join(lines(text, why))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]now" in shown
    coloured_text = coloured(text, why)
    (span,) = coloured_text.spans
    assert coloured_text.plain[span.start : span.end] == "shares"


def test_many_words_are_told_as_one_row() -> None:
    text = " ".join(["word"] * 40)
    many = tuple(Part(place * 5, place * 5 + 4, 1.0 + place / 100) for place in range(40))
    shown = lines(text, Explanation(label="a", logit=50.0, bias=1.0, words=many))
    assert sum(line.startswith("word ") for line in shown[4:]) <= 14
    assert any(line.startswith("(other words)") for line in shown)
    assert max(map(len, shown)) <= 80
