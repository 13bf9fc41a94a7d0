"""The plain answers of a batch, written as JSON by one compiled call that holds no lock.

Plain are `ok` with a label and without a ranking, and `expired`: nearly all answers. What is written is what
:func:`headrace_schemas.codec.encode_result` writes, byte for byte, for a quarter of its time; it writes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel
from headrace.worker.stages.decode import EXPIRED, FAILED
from headrace_schemas.records import Status

MICROS = 1_000_000
"""Scores are written with six decimals."""
OTHER = FAILED
"""Instead of a label's index: not plain, as a failed answer never is. EXPIRED is the other one."""

_FRAME = 120
"""More bytes than everything of an answer takes but its fragment and its id."""
_OFFSET, _AFTER, _CRC, _ID = (
    np.frombuffer(part, np.uint8) for part in (b'{"offset":', b',"after":', b',"crc":', b',"id":"')
)


class PlainAnswers:
    """Writes the answers of one version with ``labels``."""

    def __init__(self, version: str, labels: Sequence[str]) -> None:
        of_version = f',"version":{_text(version)}'
        fragments = [f',"status":"{Status.OK}"{of_version},"label":{_text(label)},"score":' for label in labels]
        parts = [part.encode() for part in (*fragments, f',"status":"{Status.EXPIRED}"{of_version}')]
        self._ends = np.cumsum([0, *map(len, parts)])
        self._fragments = np.frombuffer(b"".join(parts), np.uint8)
        self._longest = _FRAME + max(map(len, parts))

    def warm(self) -> None:
        """Load the kernel from numba's cache, or compile it."""
        nothing = np.zeros(1, np.int64)
        self.write(nothing, -1, nothing.astype(np.uint32), nothing.astype(np.int32), nothing, [])

    def write(
        self,
        offsets: NDArray[np.int64],
        after: int,
        crcs: NDArray[np.uint32],
        labels: NDArray[np.int32],
        micros: NDArray[np.int64],
        ids: Sequence[str | None],
    ) -> list[bytes | None]:
        """Write the answers to requests at ``offsets``, which begin behind ``after``; None for what is not plain.

        ``labels`` are indexes, EXPIRED or OTHER; ``micros`` scores in millionths. ``ids`` is empty when no request has
        one; an id that JSON writes with escapes is not plain.
        """
        # An id of no characters is one all the same, which a span can't say.
        labels = np.where([id_ == "" for id_ in ids], np.int32(OTHER), labels) if "" in ids else labels
        texts = [b"" if id_ is None else id_.encode() for id_ in ids]
        id_ends = np.cumsum([0, *map(len, texts)]) if texts else np.zeros(len(offsets) + 1, np.int64)
        out = np.empty(self._longest * len(offsets) + int(id_ends[-1]), np.uint8)
        ends = np.empty(len(offsets) + 1, np.int64)
        _write(
            offsets,
            after,
            crcs,
            labels,
            micros,
            np.frombuffer(b"".join(texts), np.uint8),
            id_ends,
            self._fragments,
            self._ends,
            out,
            ends,
        )
        written = out[: ends[-1]].tobytes()
        return [written[start:end] or None for start, end in pairwise(ends.tolist())]


def in_micros(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Scores in [0, 1] as whole millionths."""
    return np.rint(scores * np.float64(MICROS)).astype(np.int64)


@lru_cache(maxsize=8)
def plain_answers(version: str, labels: tuple[str, ...]) -> PlainAnswers:
    """The writer of a version's answers, made once."""
    return PlainAnswers(version, labels)


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


@kernel
def _copy(source, start, end, out, at):  # type: ignore[no-untyped-def]
    for i in range(start, end):
        out[at] = source[i]
        at += 1
    return at


@kernel
def _number(value, out, at):  # type: ignore[no-untyped-def]
    """Write a whole number in decimal digits."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits = 1
    rest = value // 10
    while rest:
        digits += 1
        rest //= 10
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = 48 + value % 10
        value //= 10
    return at + digits


@kernel
def _score(micros, out, at):  # type: ignore[no-untyped-def]
    """Write millionths as the shortest decimal fraction: 1.0, 0.5, 0.981234."""
    at = _number(micros // MICROS, out, at)
    out[at] = 46
    at += 1
    rest = micros % MICROS
    place = MICROS // 10
    while True:
        out[at] = 48 + rest // place
        at += 1
        rest %= place
        if rest == 0:
            return at
        place //= 10


@kernel
def _escaped(data, start, end):  # type: ignore[no-untyped-def]
    """Whether JSON writes a character of ``data[start:end]`` otherwise than it is."""
    found = False
    for i in range(start, end):
        found = found or data[i] < 0x20 or data[i] == 0x22 or data[i] == 0x5C
    return found


@kernel
def _write(offsets, after, crcs, labels, micros, ids, id_ends, fragments, fragment_ends, out, ends):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    at = 0
    ends[0] = 0
    expired = len(fragment_ends) - 2
    for i in range(len(offsets)):
        label = labels[i]
        if label != OTHER and not _escaped(ids, id_ends[i], id_ends[i + 1]):
            at = _copy(_OFFSET, 0, len(_OFFSET), out, at)
            at = _number(offsets[i], out, at)
            at = _copy(_AFTER, 0, len(_AFTER), out, at)
            at = _number(after, out, at)
            at = _copy(_CRC, 0, len(_CRC), out, at)
            at = _number(np.int64(crcs[i]), out, at)
            fragment = expired if label == EXPIRED else label
            at = _copy(fragments, fragment_ends[fragment], fragment_ends[fragment + 1], out, at)
            if label != EXPIRED:
                at = _score(micros[i], out, at)
            if id_ends[i + 1] > id_ends[i]:
                at = _copy(_ID, 0, len(_ID), out, at)
                at = _copy(ids, id_ends[i], id_ends[i + 1], out, at)
                out[at] = 34
                at += 1
            out[at] = 125
            at += 1
        after = offsets[i]
        ends[i + 1] = at
