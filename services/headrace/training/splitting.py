"""Divide rows into training, validation and test by a hash of the text, so that a text never changes sides.

More rows, another order, another machine or a later version of the data set: a text stays where it was. Equal texts
have equal keys and therefore stay together.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

import msgspec

from headrace.training.cleaning import Cleaned
from headrace.training.dataset import DatasetError, Rows
from headrace.training.text_keys import text_keys

_TEST_SHARE = 0.1
_VALID_SHARE = 0.1


class Part(enum.Enum):
    """What a row is used for."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The three parts, and how many rows left training because their text is in a validation or test file."""

    train: Rows
    valid: Rows
    test: Rows
    held_out: int


def part_of(key: bytes) -> Part:
    """Where the text of ``key`` belongs: 80 % of all texts train, 10 % validate, 10 % test."""
    share = int.from_bytes(key[:8], "big") / 2**64
    if share < _TEST_SHARE:
        return Part.TEST
    return Part.VALID if share < _TEST_SHARE + _VALID_SHARE else Part.TRAIN


def split(cleaned: Cleaned, *, valid: Rows | None = None, test: Rows | None = None) -> Split:
    """Divide ``cleaned`` by :func:`part_of`; a file of the data set's own replaces a hashed part.

    With ``test`` given, the rows that the hash would have set aside for testing train instead; so for ``valid``.
    The rows of ``valid`` and ``test`` are taken as they are, so that figures compare with published ones, and a
    training row whose text is in either is left out. Raises DatasetError when a part is left without rows.
    """
    outside = set(text_keys(valid.texts)) if valid else set()
    outside |= set(text_keys(test.texts)) if test else set()
    places: dict[Part, list[int]] = {part: [] for part in Part}
    held_out = 0
    for place, key in enumerate(cleaned.keys):
        if key in outside:
            held_out += 1
            continue
        places[_used_as(key, valid is not None, test is not None)].append(place)
    parts = {part: cleaned.rows.take(places[part]) for part in Part}
    result = Split(
        train=parts[Part.TRAIN],
        valid=parts[Part.VALID] if valid is None else valid,
        test=parts[Part.TEST] if test is None else test,
        held_out=held_out,
    )
    _check_not_empty(result, len(cleaned.keys))
    return result


def _used_as(key: bytes, has_valid: bool, has_test: bool) -> Part:
    part = part_of(key)
    replaced = (part is Part.VALID and has_valid) or (part is Part.TEST and has_test)
    return Part.TRAIN if replaced else part


def _check_not_empty(result: Split, rows: int) -> None:
    empty: Collection[str] = [part.value for part in Part if not len(getattr(result, part.value))]
    if empty:
        raise DatasetError(
            f"{rows} clean rows leave none for {' and '.join(empty)}."
            " About 100 rows are the least that can be split; or give --valid and --test files"
        )
