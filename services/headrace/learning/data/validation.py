"""Drop what training can't learn from: rows without words or label, repeats, and texts labelled in two ways."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.label_names import label_name
from headrace.learning.data.files import Rows
from headrace.learning.data.text_keys import NO_WORDS, key_halves, number_keys, text_keys

NO_LABEL = -1


class Verdict(enum.IntEnum):
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
    """Keep one row for each text, the first, in file order, as :func:`judge` says.

    Labels are taken as :func:`~headrace.core.label_names.label_name` spells them. A row is empty when its text has no
    words, or its label no name.
    """
    keys = text_keys(rows.texts)
    names = [label_name(label) for label in rows.labels]
    labels, _ = number_labels(keys, names)
    verdicts = judge(number_keys(key_halves(keys)), labels)
    places = np.flatnonzero(verdicts == Verdict.KEPT).tolist()
    counts = np.bincount(verdicts, minlength=len(Verdict)).tolist()
    return Cleaned(
        rows=Rows(tuple(rows.texts[i] for i in places), tuple(names[i] for i in places)),
        places=tuple(places),
        keys=tuple(keys[i] for i in places),
        empty=counts[Verdict.EMPTY],
        duplicate=counts[Verdict.DUPLICATE],
        conflicting=counts[Verdict.CONFLICTING],
    )


def number_labels(keys: Sequence[bytes], names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The place of each row's label among all labels, sorted, which come second; NO_LABEL for an empty row."""
    known = sorted({name for key, name in zip(keys, names, strict=True) if key != NO_WORDS and name})
    places = {name: place for place, name in enumerate(known)}
    pairs = zip(keys, names, strict=True)
    numbers = (NO_LABEL if key == NO_WORDS else places.get(name, NO_LABEL) for key, name in pairs)
    return np.fromiter(numbers, np.int64, len(keys)), tuple(known)


def judge(texts: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The :class:`Verdict` on each of n rows: equal ``texts`` have equal numbers, and so have equal ``labels``.

    - empty: the label is NO_LABEL.
    - duplicate: a later row of equal text and equal label.
    - conflicting: equal texts with different labels. The label of more than half of them is taken and the others are
      dropped; without such a majority nobody can say which is right, and all of them are dropped.
    """
    verdicts = np.full(len(texts), Verdict.EMPTY, np.int64)
    full = np.flatnonzero(labels != NO_LABEL)
    if not len(full):
        return verdicts
    span = labels.max() + 1
    pairs, pair_of, votes = np.unique(texts[full] * span + labels[full], return_inverse=True, return_counts=True)
    voters = np.bincount(pairs // span, weights=votes)
    accepted = (2 * votes > voters[pairs // span])[pair_of]
    verdicts[full] = np.where(accepted, Verdict.DUPLICATE, Verdict.CONFLICTING)
    taken = full[accepted]
    _, firsts = np.unique(texts[taken], return_index=True)
    verdicts[taken[firsts]] = Verdict.KEPT
    return verdicts
