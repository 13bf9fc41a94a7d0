"""Which labels count: the one statement of the rules, for files, for the trainer service and for the ranks.

1. A label is usable when it has a name, is allowed (:func:`is_allowed`), and its text has words.
2. Of several records of one id the last counts (:func:`last_of_ids`).
3. Of equal texts under several ids the label of more than half of them counts. Without such a majority nobody can say
   which label is right, and none counts (:func:`is_majority`).

Texts are equal when their words are (:func:`text_keys`): the network can't tell apart texts that differ in case, spaces
and separators only.

Files and ranks hold all rows and decide by arrays (:func:`validate`); the trainer sees one label after another and
keeps the votes of each text (:class:`KnownLabels`).
"""

from __future__ import annotations

import enum
import hashlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.label_rules import Rules, learnt_as
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.model.words import HASHING, RULES, hash_strings

# Longer than any text that the wire takes, so the key covers the whole text and not only what a network reads of it.
_ALL_WORDS = 2**31 - 1
NO_WORDS = b""


def text_keys(texts: Sequence[str], hashing: str = HASHING) -> list[bytes]:
    """A key of 32 bytes for each text: equal for texts of equal words, :data:`NO_WORDS` for a text without words.

    The key is the SHA-256 of the text's word hashes in order, little-endian, so it is the same in every run, on every
    Python and machine, by one of :data:`HASHINGS`. Raises KeyError for a ``hashing`` that is none of them.
    """
    return HASHINGS[hashing](texts)


def _keys_of_words(texts: Sequence[str], hashing: str) -> list[bytes]:
    hashes, starts = hash_strings(texts, _ALL_WORDS, hashing)
    portable = hashes.astype("<u8")
    return [_key(portable[first:end]) for first, end in pairwise(starts)]


def _key(words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> bytes:
    return hashlib.sha256(words.tobytes()).digest() if len(words) else NO_WORDS


HASHINGS: Mapping[str, Callable[[Sequence[str]], list[bytes]]] = MappingProxyType(
    {hashing: partial(_keys_of_words, hashing=hashing) for hashing in RULES}
)
"""Every hashing that has made keys of texts, by its name in :mod:`headrace.model.words`, and how it makes them.

One that is replaced stays here: ids of labels and the splits of versions were made by it.
"""


KEY_BYTES = 16
"""How much of a digest tells keys apart: with 10^9 of them two collide with a probability of 10^-21."""


def key_halves(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """The first 16 bytes of each key, (n, 2); a key that is shorter is padded with zeros."""
    joined = b"".join(key[:KEY_BYTES].ljust(KEY_BYTES, b"\0") for key in keys)
    return np.frombuffer(joined, "<u8").reshape(len(keys), 2)


def number_keys(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n, 2) keys to (n,) numbers from 0 on, without a gap: equal for equal keys, in the order of the keys."""
    numbers = np.zeros(len(halves), np.int64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    numbers[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return numbers


NO_LABEL = -1
MOST_NAME_BYTES = 512 * 1024
"""Of all labels' names: a version's record holds them, and Kafka takes a record of 1 MiB unless told otherwise."""


class RowStatus(enum.IntEnum):
    """What becomes of a row."""

    KEPT = 0
    EMPTY = 1
    DUPLICATE = 2
    CONFLICTING = 3


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that are left, with the key of each text, and how many rows were dropped for which reason.

    ``places`` says which of the rows given they are.
    """

    rows: Rows
    places: tuple[int, ...]
    keys: tuple[bytes, ...]
    empty: int
    duplicate: int
    conflicting: int

    def dropped(self) -> str:
        """How many were dropped for which reason, in words; "" for none."""
        counts = {"empty": self.empty, "duplicate": self.duplicate, "conflicting": self.conflicting}
        return ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)


def clean(rows: Rows) -> Cleaned:
    """Keep one row for each text, the first, in file order, as :func:`validate` says.

    Labels are taken as :func:`~headrace.core.text.label_name` spells them. A row is empty when its text has no
    words, or its label no name.
    """
    keys = text_keys(rows.texts)
    names = [label_name(label) for label in rows.labels]
    labels, _ = number_labels(keys, names)
    statuses = validate(number_keys(key_halves(keys)), labels)
    places = np.flatnonzero(statuses == RowStatus.KEPT).tolist()
    counts = np.bincount(statuses, minlength=len(RowStatus)).tolist()
    return Cleaned(
        rows=Rows(tuple(rows.texts[i] for i in places), tuple(names[i] for i in places)),
        places=tuple(places),
        keys=tuple(keys[i] for i in places),
        empty=counts[RowStatus.EMPTY],
        duplicate=counts[RowStatus.DUPLICATE],
        conflicting=counts[RowStatus.CONFLICTING],
    )


def is_allowed(name: str, allowed: Collection[str]) -> bool:
    """Whether a label of this name may be learnt; where ``allowed`` is empty every label may."""
    return not allowed or name in allowed


def check_labels(labels: Sequence[str], most: int | None) -> None:
    """Raises DatasetError for more labels than ``most``, or names that no version's record can hold."""
    if most is not None and len(labels) > most:
        raise DatasetError(
            f"there are {len(labels):,} labels, and trainer.max_labels allows {most:,}. Where somebody publishes "
            "labels that are none, name the right ones in trainer.labels"
        )
    size = sum(len(label.encode("utf-8", "replace")) for label in labels)
    if size > MOST_NAME_BYTES:
        raise DatasetError(
            f"the names of the {len(labels):,} labels have {size:,} bytes together, and a version's record holds "
            f"{MOST_NAME_BYTES:,}. Give them shorter names"
        )


def is_majority(votes: Any, total: Any) -> Any:
    """Whether ``votes`` of the ``total`` of equal texts decide on their label: numbers, or arrays of them."""
    return 2 * votes > total


def last_of_ids(
    ids: NDArray[np.int64], timestamps_ms: NDArray[np.int64], partitions: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of n records are the last of their id, of which each partition gives its last record.

    An id is on several partitions when partitions were added. The record of the latest timestamp counts, of equal
    timestamps that of the highest partition.
    """
    order = np.lexsort((partitions, timestamps_ms, ids))
    last = np.zeros(len(ids), np.bool_)
    last[order] = np.diff(ids[order], append=-1) != 0
    return last


def number_labels(keys: Sequence[bytes], names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The place of each row's label among all labels, sorted, which come second; NO_LABEL for an empty row."""
    known = sorted({name for key, name in zip(keys, names, strict=True) if key != NO_WORDS and name})
    places = {name: place for place, name in enumerate(known)}
    pairs = zip(keys, names, strict=True)
    numbers = (NO_LABEL if key == NO_WORDS else places.get(name, NO_LABEL) for key, name in pairs)
    return np.fromiter(numbers, np.int64, len(keys)), tuple(known)


def validate(texts: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The :class:`RowStatus` on each of n rows: equal ``texts`` have equal numbers, and so have equal ``labels``.

    - empty: the label is NO_LABEL.
    - duplicate: a later row of equal text and equal label.
    - conflicting: equal texts with different labels. The label of more than half of them is taken and the others are
      dropped; without such a majority nobody can say which is right, and all of them are dropped.
    """
    statuses = np.full(len(texts), RowStatus.EMPTY, np.int64)
    full = np.flatnonzero(labels != NO_LABEL)
    if not len(full):
        return statuses
    span = labels.max() + 1
    pairs, pair_of, votes = np.unique(texts[full] * span + labels[full], return_inverse=True, return_counts=True)
    voters = np.bincount(pairs // span, weights=votes)
    accepted = is_majority(votes, voters[pairs // span])[pair_of]
    statuses[full] = np.where(accepted, RowStatus.DUPLICATE, RowStatus.CONFLICTING)
    taken = full[accepted]
    _, firsts = np.unique(texts[taken], return_index=True)
    statuses[taken[firsts]] = RowStatus.KEPT
    return statuses


_SHOWN = 80

EMPTY_LABEL = "empty-label"
EMPTY_TEXT = "empty-text"
CONFLICTING_LABEL = "conflicting-label"
UNKNOWN_LABEL = "unknown-label"
RETIRED_LABEL = "retired-label"


class Fault(msgspec.Struct, frozen=True):
    """Why a label is refused: a code that never changes, and a message for people without the text."""

    code: str
    message: str


class _Known(msgspec.Struct, frozen=True):
    text: bytes
    label: str


NO_RULES: Rules = MappingProxyType({})


class KnownLabels:
    """Takes about 600 bytes a label. ``allowed`` is empty when any label is; ``rules`` say what labels are learnt as.

    ``new`` and ``erased`` are the ids that were labelled (again, with another text or label) and erased since
    :meth:`begin_snapshot`.
    """

    def __init__(self, allowed: Sequence[str] = (), rules: Rules = NO_RULES) -> None:
        self.rules = rules
        self._allowed = frozenset(learnt_as(label_name(label), rules) or "" for label in allowed)
        self._known: dict[bytes, _Known] = {}
        self._votes: dict[bytes, dict[str, int]] = {}
        self._decided = 0
        self._new: set[bytes] = set()
        self._erased: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def usable(self) -> int:
        """How many rows a training of all that is known would take: one of each text that has a label to learn."""
        return self._decided

    def learnt(self, text_key: bytes) -> str | None:
        """The label that a training takes for the text with this key, None when it takes none."""
        votes = self._votes.get(text_key[:KEY_BYTES])
        return None if votes is None else _majority(votes)

    @property
    def new(self) -> int:
        return len(self._new)

    @property
    def erased(self) -> int:
        return len(self._erased)

    def begin_snapshot(self) -> None:
        """All that is known now is in a snapshot."""
        self._new.clear()
        self._erased.clear()

    def take(self, id_: bytes, text_key: bytes, label: str, *, snapped: bool) -> Fault | None:
        """Take in the label of ``id_``; ``text_key`` is that of its text, ``snapped`` whether the snapshot holds it.

        Returns why it is refused, None when it is not. A refused label takes the place of the one before it, as it
        does on the compacted topic.
        """
        learnt = learnt_as(label_name(label), self.rules)
        if learnt is None:
            # Nobody is to blame, so it is no dead letter.
            self.remove(id_, snapped=snapped)
            return None
        known = _Known(text_key[:KEY_BYTES], sys.intern(learnt))
        fault = self._unusable(known)
        if fault is not None:
            self.remove(id_, snapped=snapped)
            return fault
        if self._known.get(id_) != known:
            self._replace(id_, known, snapped=snapped)
        return self._conflict(known)

    def remove(self, id_: bytes, *, snapped: bool) -> None:
        """``id_`` was erased, or its last record can't be used."""
        known = self._known.pop(id_, None)
        if known is None:
            return
        self._vote(known, -1)
        self._new.discard(id_)
        if not snapped:
            self._erased.add(id_)

    def _replace(self, id_: bytes, label: _Known, *, snapped: bool) -> None:
        self.remove(id_, snapped=True)
        self._known[id_] = label
        self._vote(label, 1)
        self._erased.discard(id_)
        if not snapped:
            self._new.add(id_)

    def _vote(self, label: _Known, count: int) -> None:
        """Count a vote for the label of a text, or take one back."""
        votes = self._votes.setdefault(label.text, {})
        self._decided -= _majority(votes) is not None
        votes[label.label] = votes.get(label.label, 0) + count
        if not votes[label.label]:
            del votes[label.label]
        self._decided += _majority(votes) is not None
        if not votes:
            del self._votes[label.text]

    def _unusable(self, label: _Known) -> Fault | None:
        if not label.label:
            return Fault(EMPTY_LABEL, "label: is empty or blank")
        if not is_allowed(label.label, self._allowed):
            return Fault(UNKNOWN_LABEL, f"label: {label.label[:_SHOWN]!r} is none of trainer.labels")
        if label.text == NO_WORDS:
            return Fault(EMPTY_TEXT, "text: has no words")
        return None

    def _conflict(self, label: _Known) -> Fault | None:
        votes = self._votes[label.text]
        if _majority(votes) == label.label:
            return None
        other = min((other for other in votes if other != label.label), key=lambda other: (-votes[other], other))
        message = (
            f"label: {label.label[:_SHOWN]!r} is that of {votes[label.label]} of {sum(votes.values())} equal texts, "
            f"{other[:_SHOWN]!r} of {votes[other]}; a training takes the label of more than half of them"
        )
        return Fault(CONFLICTING_LABEL, message)


def _majority(votes: Mapping[str, int]) -> str | None:
    """The label of more than half of equal texts, None without one."""
    total = sum(votes.values())
    return next((label for label, count in votes.items() if is_majority(count, total)), None)
