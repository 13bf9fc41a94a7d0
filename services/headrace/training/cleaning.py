"""Drop what training can't learn from: rows without words or label, repeats, and texts labelled in two ways."""

from __future__ import annotations

from collections import Counter

import msgspec

from headrace.training.dataset import Rows
from headrace.training.text_keys import NO_WORDS, text_keys


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that are left, with the key of each text, and how many rows were dropped for which reason."""

    rows: Rows
    keys: tuple[bytes, ...]
    empty: int
    duplicate: int
    conflicting: int


def clean(rows: Rows) -> Cleaned:
    """Keep one row for each text, the first, in file order.

    - empty: the text has no words, or the label is empty or blank.
    - duplicate: a later row of equal text (:func:`~headrace.training.text_keys.text_keys`) and equal label.
    - conflicting: equal texts with different labels. The label of more than half of them is taken and the others are
      dropped; without such a majority nobody can say which is right, and all of them are dropped.
    """
    keys = text_keys(rows.texts)
    labels = [label.strip() for label in rows.labels]
    votes: dict[bytes, Counter[str]] = {}
    for key, label in zip(keys, labels, strict=True):
        if key != NO_WORDS and label:
            votes.setdefault(key, Counter())[label] += 1
    verdicts = {key: _majority(counts) for key, counts in votes.items()}

    kept: dict[bytes, int] = {}
    empty = duplicate = conflicting = 0
    for place, (key, label) in enumerate(zip(keys, labels, strict=True)):
        if key not in votes or not label:
            empty += 1
        elif label != verdicts[key]:
            conflicting += 1
        elif key in kept:
            duplicate += 1
        else:
            kept[key] = place
    places = list(kept.values())
    return Cleaned(
        rows=Rows(tuple(rows.texts[i] for i in places), tuple(labels[i] for i in places)),
        keys=tuple(kept),
        empty=empty,
        duplicate=duplicate,
        conflicting=conflicting,
    )


def _majority(counts: Counter[str]) -> str | None:
    label, votes = counts.most_common(1)[0]
    return label if 2 * votes > counts.total() else None
