"""labels.toml: the labels that a teacher may give, in words. People write it; :func:`read_labels` checks all of it.

    task = "What a customer of a bank wants."

    [labels.card_arrival]
    description = "When a card that was ordered will come."
    examples = ["where is my new card", "my card has not come yet"]

    [labels."lost or stolen card"]

Only the names are needed. Descriptions and examples go to a language model with every call.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from headrace.core.errors import UserError
from headrace.core.text import given_as, label_name

MOST_BYTES = 1 << 20
MOST_LABELS = 2000
LONGEST_NAME = 249
LONGEST_SENTENCE = 2000
MOST_EXAMPLES = 20
MOST_CHARACTERS = 200_000
"""Of names, descriptions and examples together: all of them are in every call."""

_SHOWN = 60


class LabelsFileError(UserError):
    """A labels.toml that can't be used; the message names the file, the label and what is wrong."""

    exit_code = 2


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a label means, and texts that have it."""

    description: str = ""
    examples: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: dict[str, Description]
    task: str = ""


class Labels(msgspec.Struct, frozen=True):
    """``names`` in the order of the file, ``said`` of each of them, and what the ``task`` is."""

    names: tuple[str, ...]
    said: tuple[Description, ...]
    task: str = ""


def bare_labels(names: Sequence[str]) -> Labels:
    """Labels of which nothing is known but their names."""
    return Labels(tuple(names), (Description(),) * len(names))


def read_labels(file: Path) -> Labels:
    """Read a labels.toml. Raises LabelsFileError for one that is missing, no such file, or larger than it may be."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise LabelsFileError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > MOST_BYTES:
        raise LabelsFileError(f"{file}: is larger than {MOST_BYTES >> 20} MiB, so it is no file of labels.")
    try:
        found = msgspec.convert(tomllib.loads(data.decode()), _File)
    except RecursionError:
        raise LabelsFileError(f"{file}: is nested too deeply.") from None
    # Also bytes that are no UTF-8, a number of more digits than Python reads, and what msgspec does not take.
    except ValueError as error:
        raise LabelsFileError(f"{file}: is no file of labels: {str(error)[:300]}.") from None
    try:
        return _checked(found)
    except ValueError as error:
        raise LabelsFileError(f"{file}: {error}.") from None


def _checked(found: _File) -> Labels:
    names = _names(found.labels)
    if not 2 <= len(names) <= MOST_LABELS:
        raise ValueError(f"names {len(names):,} labels; a teacher chooses among 2 to {MOST_LABELS:,}")
    for given, one in found.labels.items():
        if len(one.examples) > MOST_EXAMPLES:
            raise ValueError(f"the label {given_as(given, _SHOWN)} has more than {MOST_EXAMPLES} examples")
        if any(len(said) > LONGEST_SENTENCE for said in (one.description, *one.examples)):
            raise ValueError(
                f"the label {given_as(given, _SHOWN)}: a description or example has at most {LONGEST_SENTENCE:,} "
                "characters"
            )
    if len(found.task) > LONGEST_SENTENCE:
        raise ValueError(f"task has at most {LONGEST_SENTENCE:,} characters")
    said = tuple(found.labels.values())
    size = sum(map(len, names)) + sum(len(one.description) + sum(map(len, one.examples)) for one in said)
    if size > MOST_CHARACTERS:
        raise ValueError(
            f"names, descriptions and examples have {size:,} characters, of which every call sends all; "
            f"{MOST_CHARACTERS:,} are allowed"
        )
    return Labels(tuple(names), said, found.task)


def _names(given_names: Iterable[str]) -> dict[str, str]:
    """The names as they are cleaned, and how each was given. Raises ValueError for one that is none, or twice there."""
    names: dict[str, str] = {}
    for given in given_names:
        name = label_name(given)
        if not name:
            raise ValueError(f"the label {given_as(given, _SHOWN)} has no name")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(
                f"the label {given_as(given, _SHOWN)}: a name has at most {LONGEST_NAME} characters that can be printed"
            )
        if name in names:
            raise ValueError(f"{given_as(given, _SHOWN)} and {given_as(names[name], _SHOWN)} are one label")
        names[name] = given
    return names
