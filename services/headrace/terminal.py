"""A console for tables whose cells strangers wrote: it obeys no markup and no control character of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from headrace.core.printable import printable


class Terminal(Console):
    """rich's console, through which everything is shown that may come from a record.

    Strings are taken literally unless ``markup`` is set, and every text is made printable before it is measured.
    """

    def __init__(self, *, markup: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_shown(renderable) if isinstance(renderable, Text) else renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, lines=True), **options)


def _shown(text: Text) -> Text:
    plain = printable(text.plain, lines=True)
    if plain == text.plain:
        return text
    # The styles of parts would lie elsewhere now; that of the whole stays.
    return Text(
        plain, style=text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end
    )
