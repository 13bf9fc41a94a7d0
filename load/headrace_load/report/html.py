"""A result as one page that needs nothing else: no network, no scripts, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headrace_load.report.drawing import svg
from headrace_load.report.pictures import pictures
from headrace_load.report.tables import described, flat, headline, short, tables
from headrace_load.result import Comparison, Result


def write_report(document: Result | Comparison, path: Path) -> None:
    """Write the page: verdict, figures, pictures, how it was made, and the document itself."""
    path.write_text(page(document), encoding="utf-8")


def page(document: Result | Comparison) -> str:
    """The page of a result or a comparison. Everything in it that came from files or clusters is escaped."""
    environment = Environment(
        loader=PackageLoader("headrace_load", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    stand, words, why = headline(document)
    return environment.get_template("page.html").render(
        title=title(document),
        about=about(document),
        stands=stand,
        headline=words,
        why=why,
        notes=() if isinstance(document, Comparison) else document.notes,
        tables=tables(document),
        # The pictures are SVG that matplotlib wrote, which escapes the names in them.
        pictures=[
            {"says": picture.says, "svg": Markup(svg(picture.figure, picture.name))}  # noqa: S704
            for picture in pictures(document)
        ],
        sections=list(sections(document)),
        json=msgspec.json.format(msgspec.json.encode(document), indent=1).decode(),
    )


def title(document: Result | Comparison) -> str:
    """The name of a run, or the names of what was compared."""
    if isinstance(document, Result):
        return document.name
    first, *others = (short(name) for name in document.results)
    return f"{first} beside {others[0] if len(others) == 1 else f'{len(others)} others'}" if others else first


def about(document: Result | Comparison) -> str:
    """When and where, in a line."""
    one = document if isinstance(document, Result) else next(iter(_firsts(document).values()), None)
    if one is None:
        return "No run."
    machine = one.machine
    return f"Begun {one.begun_at} on {machine.cpus} × {machine.processor}, commit {machine.commit or 'unknown'}."


def sections(document: Result | Comparison) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Workload, contenders and machine, as settings by dotted names; of a comparison, its first run's."""
    firsts = {document.name: document} if isinstance(document, Result) else _firsts(document)
    one = next(iter(firsts.values()), None)
    if one is None:
        return
    yield "Workload", list(flat(one.workload))
    for name, result in firsts.items():
        yield f"What answered: {name}", [("", described(result.contender)), *flat(result.contender)]
    yield "Machine and versions", list(flat(one.machine))


def _firsts(comparison: Comparison) -> dict[str, Result]:
    return {name: results[0] for name, results in comparison.results.items() if results}
