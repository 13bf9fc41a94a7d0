"""How an explanation is shown in the terminal: the text with its words coloured, and the strongest parts as a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from headrace.core.text import printable
from headrace_schemas.records import Explanation, Part

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_ROWS = 12
"""Of the table. A long text has hundreds of words, and most of them say little."""
_FOR, _AGAINST = "green", "red"
_STRONG, _WEAK = 2 / 3, 1 / 12
"""Of the strongest word: from here on bold, and up to here without a colour."""


def explained(text: str, explanation: Explanation) -> Iterator[RenderableType]:
    """``text`` in colours and the parts, strongest first, for the label and for the runner-up."""
    composed = unicodedata.normalize("NFC", text)
    runner_up = explanation.against
    yield ""
    why = f"why {printable(explanation.label)}" + ("" if runner_up is None else f" and not {printable(runner_up)}")
    yield Text.assemble(why, " (", ("for", _FOR), ", ", ("against", _AGAINST), "):")
    yield coloured(composed, explanation)
    yield ""
    yield _table(composed, explanation)


def coloured(text: str, explanation: Explanation) -> Text:
    """``text`` with each word in the colour of what it adds for the label or for the runner-up.

    Half of what a pair of words adds is counted for its first code point's word, and half for its last one's.
    """
    words = sorted(explanation.words, key=lambda part: part.begin)
    weights = [_weight(part) for part in words]
    for pair in explanation.pairs:
        for place, word in enumerate(words):
            if word.begin == pair.begin or word.end == pair.end:
                weights[place] += _weight(pair) / 2
    most = max(map(abs, weights), default=0.0)
    shown = Text()
    end = 0
    for part, weight in zip(words, weights, strict=True):
        shown.append(printable(text[end : part.begin]))
        shown.append(printable(text[part.begin : part.end]), _style(weight, most))
        end = part.end
    shown.append(printable(text[end:]))
    return shown


def _weight(part: Part) -> float:
    return part.part - part.against


def _style(weight: float, most: float) -> str:
    if abs(weight) <= _WEAK * most:
        return ""
    return ("bold " if abs(weight) >= _STRONG * most else "") + (_FOR if weight > 0 else _AGAINST)


def _table(text: str, explanation: Explanation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part", overflow="fold")
    runner_up = explanation.against
    for name in (explanation.label,) if runner_up is None else (explanation.label, runner_up, "difference"):
        table.add_column(printable(name), justify="right", overflow="fold")
    parts = sorted(chain(explanation.words, explanation.pairs), key=lambda part: -abs(_weight(part)))
    shown, others = parts[:MOST_ROWS], parts[MOST_ROWS:]
    rows: list[tuple[str, float, float]] = [
        (" ".join(printable(text[part.begin : part.end]).split()), part.part, part.against) for part in shown
    ]
    if others or explanation.rest or explanation.against_rest:
        rest = explanation.rest + sum(part.part for part in others)
        rows.append(("(other words)", rest, explanation.against_rest + sum(part.against for part in others)))
    rows += [
        ("(before any word)", explanation.bias, explanation.against_bias),
        ("(logit)", explanation.logit, explanation.against_logit),
    ]
    for name, part, against in rows:
        table.add_row(Text(name), *_figures(part, against, alone=runner_up is None))
    return table


def _figures(part: float, against: float, *, alone: bool) -> Sequence[str]:
    return (f"{part:+.2f}",) if alone else (f"{part:+.2f}", f"{against:+.2f}", f"{part - against:+.2f}")
