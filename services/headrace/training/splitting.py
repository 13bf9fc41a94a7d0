"""Divide rows into training, validation and test by a hash of the text, so that a text never changes sides.

More rows, another order, another machine or a later version of the data set: a text stays where it was. Equal texts
have equal keys and therefore stay together.

Without a secret everybody can compute where a text goes, so whoever writes labels can choose the rows that the gate
judges by. With one (HMAC, RFC 2104) nobody else can.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Sequence

import msgspec

from headrace.core.secret import Secret
from headrace.files.errors import DatasetError
from headrace.model.words import HASHING
from headrace.training.cleaning import Cleaned
from headrace.training.dataset import Rows
from headrace.training.text_keys import HASHINGS, text_keys

_TEST_SHARE = 0.1
_VALID_SHARE = 0.1

_FIRST_HASHING = next(iter(HASHINGS))
_ID_DIGITS = 16
_NO_KEY = "unkeyed/"

OWN_TEST_FILE = "own-test-file"
"""The id of a split whose test rows came in a file of their own: what a hash calls test was trained on."""


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


class Splitting(msgspec.Struct, frozen=True):
    """How texts are divided: ``hashing`` makes the key of a text, ``secret`` decides where a key belongs.

    Both together are one identity, :attr:`id`: two splits of one id call the same texts test.
    """

    secret: Secret | None = None
    hashing: str = HASHING

    @property
    def keyed(self) -> bool:
        """Whether nobody without the secret can tell where a text goes."""
        return self.secret is not None

    @property
    def id(self) -> str:
        """Names the split, and shows nothing of the secret: part of lineages on a topic that others read."""
        key = _NO_KEY if self.secret is None else self._mac(b"headrace/split/id")[: _ID_DIGITS // 2].hex() + "/"
        return f"{key}{self.hashing}"

    def part_of(self, key: bytes) -> Part:
        """Where the text with this ``key`` belongs: 80 % of all texts train, 10 % validate, 10 % test."""
        drawn = key if self.secret is None else self._mac(b"headrace/split/part" + key)
        share = int.from_bytes(drawn[:8], "big") / 2**64
        if share < _TEST_SHARE:
            return Part.TEST
        return Part.VALID if share < _TEST_SHARE + _VALID_SHARE else Part.TRAIN

    def calls_test(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of ``texts``, all of which have words, is a test row in this split."""
        return [self.part_of(key) is Part.TEST for key in text_keys(texts, self.hashing)]

    def _mac(self, message: bytes) -> bytes:
        assert self.secret is not None  # noqa: S101 - both callers have looked
        return hmac.digest(self.secret.reveal().encode(), message, "sha256")


UNKEYED = Splitting()
"""The split of who has set no key, as it was before there were any."""


def is_unkeyed(id_: str | None) -> bool:
    """Whether a split with this id, as versions have it, was made without a key."""
    return id_ is None or id_.startswith(_NO_KEY)


class Splits(msgspec.Struct, frozen=True):
    """The splits that can be computed here: by the ``key`` of now, the key that was ``previous``, and without one."""

    key: Secret | None = None
    previous: Secret | None = None

    @property
    def current(self) -> Splitting:
        """The split of a training that begins now."""
        return Splitting(self.key)

    def find(self, id_: str | None) -> Splitting | None:
        """The split with this id, or None when its key or hashing is not known here.

        None as id is what versions and jobs have that were made before there were keys.
        """
        if id_ is None:
            return Splitting(hashing=_FIRST_HASHING)
        known = (Splitting(secret, hashing) for secret in (None, self.key, self.previous) for hashing in HASHINGS)
        return next((one for one in known if one.id == id_), None)


def split(
    cleaned: Cleaned, *, valid: Cleaned | None = None, test: Rows | None = None, splitting: Splitting = UNKEYED
) -> Split:
    """Divide ``cleaned`` by ``splitting``; a file of the data set's own replaces a hashed part.

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
            part = splitting.part_of(key)
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
