"""Divide rows into training, validation and test by a hash of the text, so that a text stays in its part.

A text stays where it was in another order, on another machine and in a later version of the data set. Equal texts have
equal keys, so they stay together.

All rows of a rare label may fall into one part: then it is never learnt, or never tested. So where a label has no row
in a part, one of its rows is moved there (:func:`place`): as few rows as possible, and the same ones whatever their
order. The labels of rows that changed the side of the test are named (:class:`Moved`), because an earlier or later
version may have trained on such a row.

Without a secret everybody can compute where a text goes, so whoever writes labels can choose the rows that the gate
tests on. With a secret (HMAC, RFC 2104) nobody else can.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.fields import Secret
from headrace.core.text import quantity
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.taught import NO_TAUGHT, Taught, admit, taught_digests
from headrace.learning.data.validation import HASHINGS, Cleaned, number_labels, text_keys
from headrace.model.words import HASHING

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


PARTS = tuple(Part)
"""The parts by the numbers that arrays have for them."""

_TRAIN, _VALID, _TEST = range(len(PARTS))
# What a label of one row, of two, and of more than two has rows in.
_FILLED = (_TRAIN, _TEST, _VALID)


class Moved(msgspec.Struct, frozen=True):
    """Labels of few rows for which a row is on another side than its hash says.

    ``lent``: a row that the hash calls test is learnt from. ``borrowed``: a test row is one that the hash would have
    learnt from, as other versions may have.
    """

    lent: tuple[str, ...] = ()
    borrowed: tuple[str, ...] = ()


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The three parts, how many rows were left out because their text is held by a file that comes later, and whose
    rows were moved.
    """

    train: Rows
    valid: Rows
    test: Rows
    held_out: int
    moved: Moved = Moved()


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
        """Where the text with this ``key`` belongs by its hash: 80 % of all texts train, 10 % validate, 10 % test."""
        return PARTS[int(_hashed(self.draws([key]))[0])]

    def draws(self, keys: Sequence[bytes]) -> NDArray[np.uint64]:
        """The 64 bits by which each of ``keys`` belongs to a part."""
        drawn = keys if self.secret is None else [self._mac(b"headrace/split/part" + key) for key in keys]
        return np.array([int.from_bytes(one[:8], "big") for one in drawn], np.uint64)

    def judges(self, keys: Sequence[bytes], own: Collection[Part] = ()) -> NDArray[np.bool_]:
        """Whether the text of each of ``keys`` would be a validation or test row, as :func:`place` has ``own``."""
        hashed = _hashed(self.draws(keys))
        judging = [number for number, part in enumerate(PARTS) if part is not Part.TRAIN and part not in own]
        return np.isin(hashed, judging)

    def calls_test(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of ``texts``, all of which have words, is a test row in this split."""
        return (_hashed(self.draws(text_keys(texts, self.hashing))) == _TEST).tolist()  # type: ignore[no-any-return]

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


class Placing(msgspec.Struct, frozen=True):
    """Of each of n rows the number of its part in PARTS: ``parts`` that it is in, ``hashed`` what its hash says."""

    parts: NDArray[np.int64]
    hashed: NDArray[np.int64]

    def moved(self, labels: NDArray[np.int64], names: Sequence[str]) -> Moved:
        """Whose rows came to another side: ``labels`` are the places of the rows' labels in ``names``."""

        def named(chosen: NDArray[np.bool_]) -> tuple[str, ...]:
            return tuple(sorted(names[label] for label in np.unique(labels[chosen]).tolist()))

        now, before = self.parts == _TEST, self.hashed == _TEST
        return Moved(lent=named(before & ~now), borrowed=named(now & ~before))


def place(draws: NDArray[np.uint64], labels: NDArray[np.int64], own: Collection[Part] = ()) -> Placing:
    """The part of each row by its draw, and of the rows of a label that would have none in a part.

    A label of one row has it in training, one of two rows in training and test, and one of more in every part. For
    each part that is empty, training first and validation last, one row is moved: of those that are not alone in a
    part that the label needs, the one with the lowest draw; from training to validation or back where that can be, so
    that no row changes the side of the test without need. What is moved depends on the label's rows alone, and not on
    their order. ``own`` parts came in files: they take no row, and what is theirs by the hash trains.
    """
    hashed = _hashed(draws)
    hashed[np.isin(hashed, [PARTS.index(part) for part in own])] = _TRAIN
    filled = [part for part in _FILLED if PARTS[part] not in own]
    parts = hashed.copy()
    order = np.lexsort((draws, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for places in np.split(order, starts)[1:]:
        needed = filled[: len(places)]
        counts = np.bincount(hashed[places], minlength=len(PARTS))
        if not counts[needed].all():
            parts[places] = _fill(hashed[places].tolist(), needed)
    return Placing(parts, hashed)


def _fill(parts: list[int], needed: Sequence[int]) -> list[int]:
    """``parts`` of the rows of one label, in the order of their draws, with a row in each part that is ``needed``."""
    for part in needed:
        counts = Counter(parts)
        if not counts[part]:
            free = [row for row, of in enumerate(parts) if of not in needed or counts[of] > 1]
            same_side = [row for row in free if (parts[row] == _TEST) == (part == _TEST)]
            parts[(same_side or free)[0]] = part
    return parts


def _hashed(draws: NDArray[np.uint64]) -> NDArray[np.int64]:
    shares = draws / 2.0**64
    return np.where(shares < _TEST_SHARE, _TEST, np.where(shares < _TEST_SHARE + _VALID_SHARE, _VALID, _TRAIN))


def split(
    cleaned: Cleaned,
    *,
    valid: Cleaned | None = None,
    test: Rows | None = None,
    splitting: Splitting = UNKEYED,
    folds: bool = False,
) -> Split:
    """Divide ``cleaned`` by ``splitting``; a file of the data set's own replaces a hashed part.

    With ``test`` given, the rows that the hash would have set aside for testing train instead; so for ``valid``. The
    rows of ``test`` are taken as they are, so that figures compare with published ones. A validation row whose text is
    tested on is left out, and a training row whose text is validated or tested on. Raises DatasetError when a part is
    left without rows; with ``folds`` validation may be, for then the training rows are validated on in turn.
    """
    tested = frozenset(text_keys(test.texts)) if test else frozenset[bytes]()
    own = {part for part, rows in ((Part.VALID, valid), (Part.TEST, test)) if rows is not None}
    outside = tested | frozenset(valid.keys) if valid else tested
    left = [row for row, key in enumerate(cleaned.keys) if key not in outside]
    keys = [cleaned.keys[row] for row in left]
    labels, names = number_labels(keys, [cleaned.rows.labels[row] for row in left])
    placing = place(splitting.draws(keys), labels, own)
    parts = {
        part: cleaned.rows.take([left[row] for row in np.flatnonzero(placing.parts == number).tolist()])
        for number, part in enumerate(PARTS)
    }
    held_out = len(cleaned.keys) - sum(map(len, parts.values()))
    if valid:
        parts[Part.VALID] = valid.rows.take([row for row, key in enumerate(valid.keys) if key not in tested])
        held_out += len(valid.keys) - len(parts[Part.VALID])
    if test:
        parts[Part.TEST] = test
    empty = [part.value for part in Part if not len(parts[part]) and not (folds and part is Part.VALID)]
    if empty:
        raise DatasetError(
            f"{_found(cleaned)}, which {'leaves' if len(cleaned.keys) == 1 else 'leave'} none for "
            f"{', '.join(empty)}. A label of three rows is the least that can be split; or give --valid and --test "
            "files"
        )
    return Split(
        train=parts[Part.TRAIN],
        valid=parts[Part.VALID],
        test=parts[Part.TEST],
        held_out=held_out,
        moved=placing.moved(labels, names),
    )


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """``split`` holds this rank's rows only; the rest is the same on every rank.

    ``labels``: every label among the training and validation rows of all ranks, sorted. ``rows``: training and
    validation rows of all ranks. ``digest``: of all texts and labels. ``dropped``: how many records of all ranks were
    left out, by reason.
    """

    split: Split
    labels: tuple[str, ...]
    rows: int
    digest: str
    dropped: dict[str, int]
    splitting: str = UNKEYED.id
    """The id of the split."""
    holdout: str | None = None
    """Digest of the texts that were left out because the gate judges by them."""
    test_places: tuple[tuple[int, int], ...] = ()
    """Partition and offset of each of this rank's test rows; empty where they come from files."""
    unlearnt: tuple[str, ...] = ()
    """Labels that are named somewhere in the data and have no row to learn from, sorted."""
    taught: Taught = NO_TAUGHT
    """This rank's machine rows that train; their classes are among ``labels``."""
    machine_rows: int = 0
    """How many there are on all ranks."""
    disagreements: int = 0
    """Machine labels of all ranks that say another label than people gave the text."""
    unproven: bool = False
    """Whether no person labelled any row, so that validation and test rows are a teacher's too."""


def whole(
    split: Split, dropped: dict[str, int] | None = None, splitting: str = UNKEYED.id, named: Collection[str] = ()
) -> Parts:
    """All rows as one rank has them; ``named`` are all labels of the data, before anything was left out."""
    learnt = split.train + split.valid
    labels = frozenset(learnt.labels)
    return Parts(
        split=split,
        labels=tuple(sorted(labels)),
        unlearnt=tuple(sorted(frozenset(named) - labels)),
        rows=len(learnt),
        digest=hashlib.sha256(msgspec.msgpack.encode(learnt)).hexdigest(),
        dropped=dropped or {},
        splitting=splitting,
    )


def with_taught(
    parts: Parts, taught: Taught, splitting: Splitting, human: Collection[bytes], own: Collection[Part] = ()
) -> Parts:
    """``parts``, which are all rows, with the rows of ``taught`` that may train beside them.

    ``human`` are the keys of all texts that people labelled or set aside, ``own`` the parts that came in files. With
    no human row at all the machine rows are divided as theirs would be, and the result is ``unproven``. Raises
    DatasetError when then a part is left without rows.
    """
    keys = text_keys(taught.texts, splitting.hashing)
    unproven = not parts.rows and not len(parts.split.test)
    judging = splitting.judges(keys, own)
    admitted = admit(keys, np.zeros_like(judging) if unproven else judging, human)
    left, kept = taught.take(admitted.places), [keys[row] for row in admitted.places]
    split = parts.split
    if unproven:
        hashed = _hashed(splitting.draws(kept))
        valid, test = (left.take(np.flatnonzero(hashed == number).tolist()).rows() for number in (_VALID, _TEST))
        training = np.flatnonzero(hashed == _TRAIN).tolist()
        left, kept = left.take(training), [kept[row] for row in training]
        split = msgspec.structs.replace(split, valid=valid, test=test)
        if not (len(left) and len(valid) and len(test)):
            raise DatasetError(
                f"{len(taught):,} machine-labelled texts and no human label leave a part of training, validation and "
                "test without rows. Give more texts, or some labelled by people"
            )
    if not len(left):
        return msgspec.structs.replace(parts, dropped=parts.dropped | admitted.dropped)
    labels = tuple(sorted({*parts.labels, *left.classes, *split.valid.labels}))
    left = left.of_classes(labels)
    return msgspec.structs.replace(
        parts,
        split=split,
        labels=labels,
        unlearnt=tuple(name for name in parts.unlearnt if name not in labels),
        digest=digest_with(parts.digest, taught_digests(left, kept)),
        dropped=parts.dropped | admitted.dropped,
        taught=left,
        machine_rows=len(left) + (len(split.valid) if unproven else 0),
        unproven=unproven,
    )


def digest_with(human: str, machine: Sequence[str]) -> str:
    """The digest of the human rows' digest and of the ``machine`` rows', whatever their order."""
    return hashlib.sha256(msgspec.msgpack.encode((human, sorted(machine)))).hexdigest()


def shard(parts: Parts, rank: int, world: int) -> Parts:
    """The shard of ``rank``: every ``world``-th row of each part of ``parts``, which has the rows of all ranks."""

    def own(rows: Rows) -> Rows:
        return rows.take(list(range(rank, len(rows), world)))

    split = parts.split
    own_split = msgspec.structs.replace(split, train=own(split.train), valid=own(split.valid), test=own(split.test))
    taught = parts.taught.take(range(rank, len(parts.taught), world))
    return msgspec.structs.replace(parts, split=own_split, taught=taught)


def _found(cleaned: Cleaned) -> str:
    """How many rows there are, and what became of the others."""
    rows = len(cleaned.keys)
    dropped = cleaned.dropped()
    return f"{quantity(rows, 'clean row')}{f' (left out: {dropped})' if dropped else ''}"
