"""Divide rows into training, validation and test by a hash of the text, so that a text never changes sides.

More rows, another order, another machine or a later version of the data set: a text stays where it was. Equal texts
have equal keys and therefore stay together.
"""

from __future__ import annotations

import enum

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
    """The three parts, and how many rows were left out because their text is held by a file that comes later."""

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


def split(cleaned: Cleaned, *, valid: Cleaned | None = None, test: Rows | None = None) -> Split:
    """Divide ``cleaned`` by :func:`part_of`; a file of the data set's own replaces a hashed part.

    With ``test`` given, the rows that the hash would have set aside for testing train instead; so for ``valid``. The
    rows of ``test`` are taken as they are, so that figures compare with published ones. A validation row whose text is
    tested on is left out, and a training row whose text is validated or tested on. Raises DatasetError when a part is
    left without rows.
    """
    tested = frozenset(text_keys(test.texts)) if test else frozenset[bytes]()
    own = {part for part, rows in ((Part.VALID, valid), (Part.TEST, test)) if rows is not None}
    outside = tested | frozenset(valid.keys) if valid else tested
    places: dict[Part, list[int]] = {part: [] for part in Part}
    for place, key in enumerate(cleaned.keys):
        if key not in outside:
            part = part_of(key)
            places[Part.TRAIN if part in own else part].append(place)
    parts = {part: cleaned.rows.take(places[part]) for part in Part}
    held_out = len(cleaned.keys) - sum(map(len, parts.values()))
    if valid:
        parts[Part.VALID] = valid.rows.take([place for place, key in enumerate(valid.keys) if key not in tested])
        held_out += len(valid.keys) - len(parts[Part.VALID])
    if test:
        parts[Part.TEST] = test
    empty = [part.value for part in Part if not len(parts[part])]
    if empty:
        raise DatasetError(
            f"{len(cleaned.keys)} clean rows leave none for {' and '.join(empty)}."
            " About 100 rows are the least that can be split; or give --valid and --test files"
        )
    return Split(train=parts[Part.TRAIN], valid=parts[Part.VALID], test=parts[Part.TEST], held_out=held_out)
