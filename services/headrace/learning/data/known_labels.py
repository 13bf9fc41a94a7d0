"""The labels that there are now, as the trainer has read them: which are usable, and what changed since a snapshot.

An id's last record counts. Of equal texts under several ids a training takes the label of more than half of them, as
:func:`headrace.learning.data.validation.judge` says. So a label that has not that majority among those read so far is
refused with its reason, but stays known and has its vote: when others join it, a training will take it after all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import msgspec

from headrace.core.label_names import label_name
from headrace.learning.data.text_keys import NO_WORDS
from headrace.learning.distributed.labels import UNKNOWN_LABEL

_KEY_BYTES = 16
_SHOWN = 80

EMPTY_LABEL = "empty-label"
EMPTY_TEXT = "empty-text"
CONFLICTING_LABEL = "conflicting-label"


class Fault(msgspec.Struct, frozen=True):
    """Why a label is refused: a code that never changes, and a message for people without the text."""

    code: str
    message: str


class _Known(msgspec.Struct, frozen=True):
    text: bytes
    label: str


class KnownLabels:
    """Takes about 600 bytes a label. ``allowed`` is empty when any label is.

    ``new`` and ``erased`` are the ids that were labelled (again, with another text or label) and erased since
    :meth:`begin_snapshot`.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = frozenset(map(label_name, allowed))
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
        votes = self._votes.get(text_key[:_KEY_BYTES])
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
        known = _Known(text_key[:_KEY_BYTES], sys.intern(label_name(label)))
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
        if self._allowed and label.label not in self._allowed:
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
    return next((label for label, count in votes.items() if 2 * count > total), None)
