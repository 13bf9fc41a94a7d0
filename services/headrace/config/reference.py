"""The reference of all settings: type, bounds, default and a sentence of each, taken from the sections themselves."""

from __future__ import annotations

import ast
import inspect as source
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from headrace.config.loading import shown
from headrace.config.settings import Settings
from headrace.core.fields import in_words, is_secret

_HEAD = """\
# Settings

Written by `headrace config reference --markdown`; a test fails while this page is not current.

A setting `section.field` is given, in rising order, in `headrace.toml` (`[section]`, then `field = value`), by the
environment variable `HEADRACE_SECTION__FIELD` (two underscores between section and field), by a command's own option
where it has one, and by `--set section.field=value`. `headrace config show` prints what is set and where it came from.
A secret is never given by `--set`; `section.field_file` names a file that holds it.
"""


class Described(NamedTuple):
    """One setting. ``default`` is as it would be written, and tells nothing of a secret."""

    key: str
    allowed: str
    default: str
    sentence: str


def described() -> Iterator[Described]:
    """Every setting, in the order of the sections."""
    for section in msgspec.structs.fields(Settings):
        said = _sentences(section.type)
        for field in msgspec.structs.fields(section.type):
            info = inspect.type_info(field.type)
            default = getattr(section.type(), field.name)
            yield Described(
                key=f"{section.name}.{field.name}",
                allowed="a secret" if is_secret(info) else in_words(info),
                default=shown(default) or "(empty)",
                sentence=said.get(field.name, ""),
            )


def as_text() -> Iterator[str]:
    """The lines of the reference for a terminal of 80 columns."""
    for one in described():
        yield one.key
        wrapped = (textwrap.wrap(line, 76) for line in (one.sentence, f"{one.allowed}; default: {one.default}"))
        yield from (f"    {line}" for lines in wrapped for line in lines)


def as_markdown() -> str:
    """The page docs/settings.md."""
    lines = [_HEAD]
    section = ""
    for one in described():
        if (now := one.key.partition(".")[0]) != section:
            section = now
            head = ("| setting | allowed | default | |", "|---|---|---|---|")
            lines += [*([] if lines[-1] == _HEAD else [""]), f"## {section}", "", *head]
        cells = (f"`{one.key}`", one.allowed, f"`{one.default}`", one.sentence)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


@cache
def _sentences(section: type[Any]) -> dict[str, str]:
    """What the string under each field says; the strings are not kept at run time, so the source is read."""
    said: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if owner.__module__.partition(".")[0] not in ("headrace", "headrace_schemas"):
            continue
        (found,) = ast.parse(textwrap.dedent(source.getsource(owner))).body
        body = getattr(found, "body", [])
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    said[name] = " ".join(text.replace("``", "`").split())
    return said
