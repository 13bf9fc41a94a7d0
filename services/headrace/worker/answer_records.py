"""Writes a slice's answers as Kafka's record batches, in one compiled call that holds no lock.

Nearly all answers are plain: `expired`, `ok` with a label and neither a ranking nor an explanation, or `failed`
without an id. Their JSON is written here too, the same bytes as :func:`headrace_schemas.codec.encode_result` writes.
The values of the other answers are given. Keys and header blocks are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.packed_records import HEAD, PackedRecords
from headrace.kafka.record_writing import (
    MOST_RECORD,
    ROOM,
    Spans,
    copy,
    cut,
    digits_of,
    spans_of,
    two_digits,
    varint,
    varint_size,
    write_number,
)
from headrace.model.compiling import kernel
from headrace.worker.request_values import EXPIRED, FAILED
from headrace.worker.stages.infer import MICROS
from headrace_schemas.records import Status

OTHER = FAILED
"""Instead of a label's index, of an answer whose value is given."""
FIRST_REASON = OTHER - 1
"""Instead of a label's index, of a plain failed answer with the first reason; the reason behind it is one less."""

_FRAME = 120
"""The JSON of an answer without its fragment and its id has fewer bytes."""
_HEAD_BYTES = HEAD.size
_PIECES = ('{"offset":', ',"after":', ',"crc":', ',"id":"')
"""Of an answer's JSON; behind them a writer has those of its labels, that of an expired request, and those of its
reasons.
"""
_OFFSET, _AFTER, _CRC, _ID, _FIRST_LABEL = range(len(_PIECES) + 1)
NO_OTHERS = spans_of({}, 0)
"""Where no answer is OTHER."""


class AnswerColumns(msgspec.Struct, frozen=True, eq=False):
    """What is written of the answers to consecutive requests; ``after`` is the offset of the request before them.

    ``offsets`` int64[n] and ``crcs`` uint32[n] are those of the requests, ``keys`` theirs too. ``labels`` int32[n] are
    indexes, EXPIRED, OTHER or those of reasons, ``micros`` int64[n] scores in millionths, ``ids`` as they stand between
    the quotes of JSON, ``others`` the values of the answers that are OTHER. ``headers`` int32[n] are indexes of
    ``header_blocks``, which :func:`headrace.kafka.packed_records.packed_headers` makes.
    """

    offsets: NDArray[np.int64]
    after: int
    crcs: NDArray[np.uint32]
    labels: NDArray[np.int32]
    micros: NDArray[np.int64]
    ids: Spans
    keys: Spans
    others: Spans
    headers: NDArray[np.int32]
    header_blocks: Sequence[bytes]


class AnswerWriter:
    """Writes the answers of one version with ``labels``, and the failed ones with one of ``reasons``."""

    def __init__(self, version: str, labels: Sequence[str], reasons: Sequence[str] = ()) -> None:
        of_version = f',"version":{_text(version)}'
        with_label = [f',"status":"{Status.OK}"{of_version},"label":{_text(label)},"score":' for label in labels]
        expired = f',"status":"{Status.EXPIRED}"{of_version}'
        failed = [f',"status":"{Status.FAILED}"{of_version},"reason":{_text(reason)}' for reason in reasons]
        pieces = [piece.encode() for piece in (*_PIECES, *with_label, expired, *failed)]
        self._expired = _FIRST_LABEL + len(labels)
        self._ends = np.cumsum([0, *map(len, pieces)])
        self._pieces = np.frombuffer(b"".join(pieces) + bytes(ROOM), np.uint8)
        self._longest = _FRAME + max(map(len, pieces))

    def warm(self) -> None:
        """Load the kernel from numba's cache, or compile it."""
        nothing, none = np.zeros(1, np.int64), spans_of({}, 1)
        label = nothing.astype(np.int32)
        self.write(
            AnswerColumns(nothing, -1, nothing.astype(np.uint32), label, nothing, none, none, none, label, [b"\0"]),
            batch_bytes=1,
        )

    def write(self, answers: AnswerColumns, *, batch_bytes: int) -> PackedRecords:
        """Write ``answers`` into batches of less than ``batch_bytes``, divided as aiokafka's own builder does it.

        A larger record has a batch of its own.
        """
        count = len(answers.offsets)
        blocks = np.array([0, *accumulate(map(len, answers.header_blocks))], np.int64)
        # Compiled, because a sum by numpy takes as long as writing eight answers.
        copied = _copied(answers.ids.sizes, answers.keys.sizes, answers.headers, blocks)
        out = np.empty(count * (MOST_RECORD + self._longest) + copied + len(answers.others.data) + ROOM, np.uint8)
        ends, counts = np.zeros((2, count + 1), np.int64)
        batches = _write(
            answers.offsets,
            answers.after,
            answers.crcs,
            answers.labels,
            answers.micros,
            *((spans.data, spans.starts, spans.sizes) for spans in (answers.ids, answers.keys, answers.others)),
            answers.headers,
            np.frombuffer(b"".join(answers.header_blocks), np.uint8),
            blocks,
            self._pieces,
            self._ends,
            self._expired,
            batch_bytes,
            out,
            ends,
            counts,
        )
        return cut(out, ends[: batches + 1], counts[: batches + 1])


@lru_cache(maxsize=64)
def answer_writer(version: str, labels: tuple[str, ...], reasons: tuple[str, ...] = ()) -> AnswerWriter:
    """The writer of a version's answers and of failed ones with ``reasons``, made once."""
    return AnswerWriter(version, labels, reasons)


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


@kernel
def _copied(id_sizes, key_sizes, headers, block_ends):  # type: ignore[no-untyped-def]
    """How many bytes of ids, keys and header blocks are written."""
    total = 0
    for i in range(len(headers)):
        block = headers[i]
        total += max(id_sizes[i], 0) + max(key_sizes[i], 0) + block_ends[block + 1] - block_ends[block]
    return total


_CRC_DIGITS = 10
_HUNDRED, _TEN = np.uint64(100), np.uint64(10)
_ZERO, _POINT, _QUOTE, _BRACE = np.uint64(ord("0")), ord("."), ord('"'), ord("}")


@kernel
def _score_size(micros):  # type: ignore[no-untyped-def]
    """How many characters the shortest decimal fraction of millionths has: 1.0, 0.5, 0.981234."""
    digits = 6
    rest = np.uint64(micros)
    while digits > 1 and not rest % _TEN:
        rest //= _TEN
        digits -= 1
    return 2 + digits


@kernel
def _score(micros, size, out, at):  # type: ignore[no-untyped-def]
    """Write millionths, of one at most, in ``size`` characters, their ``_score_size``, and zeros behind them."""
    out[at] = _ZERO + np.uint64(micros // MICROS)
    out[at + 1] = _POINT
    rest = np.uint64(micros % MICROS)
    for place in range(at + 6, at, -2):
        two_digits(rest % _HUNDRED, out, place)
        rest //= _HUNDRED
    return at + size


@kernel
def _piece_size(ends, which):  # type: ignore[no-untyped-def]
    return ends[which + 1] - ends[which]


@kernel
def _piece(pieces, ends, which, out, at):  # type: ignore[no-untyped-def]
    return copy(pieces, ends[which], ends[which + 1], out, at)


@kernel
def _write(  # type: ignore[no-untyped-def]  # noqa: PLR0915, PLR0917 - one loop
    offsets,
    after,
    crcs,
    labels,
    micros,
    ids,
    keys,
    others,
    headers,
    blocks,
    block_ends,
    pieces,
    piece_ends,
    expired,
    batch_bytes,
    out,
    ends,
    counts,
):
    """Write the records of all answers into ``out``; returns the number b of batches.

    ``ends[1 : b + 1]`` are where the batches end, ``counts[1 : b + 1]`` how many records they have.

    A value is written at its place, so its size is computed before: bytes that were just written one by one are slow to
    read again.
    """
    id_data, id_starts, id_sizes = ids
    key_data, key_starts, key_sizes = keys
    other_data, other_starts, other_sizes = others
    # Of the values that begin with what is before the offset, up to the brace at the end.
    framed = _piece_size(piece_ends, _OFFSET) + _piece_size(piece_ends, _AFTER) + _piece_size(piece_ends, _CRC) + 1
    framed_id = _piece_size(piece_ends, _ID) + 1
    at, batch, delta = 0, 1, 0
    after_size = digits_of(after, 1)
    for i in range(len(offsets)):
        key, key_size = key_starts[i], key_sizes[i]
        block, label = headers[i], labels[i]
        offset_size, crc_size, score_size = digits_of(offsets[i], after_size), 0, 0
        piece = np.int64(_FIRST_LABEL + label)
        if label < 0:
            piece = np.int64(expired if label == EXPIRED else expired + 1 + FIRST_REASON - label)
        if label == OTHER:
            value_size = other_sizes[i]
        else:
            crc_size = digits_of(np.int64(crcs[i]), _CRC_DIGITS)
            score_size = _score_size(micros[i]) if label >= 0 else 0
            value_size = framed + offset_size + after_size + crc_size + score_size + _piece_size(piece_ends, piece)
            if id_sizes[i] >= 0:
                value_size += framed_id + id_sizes[i]
        # Attributes, no difference of time, key, value, headers; and then the difference of offsets.
        fixed = 2 + varint_size(key_size) + max(key_size, 0) + varint_size(value_size) + value_size
        fixed += block_ends[block + 1] - block_ends[block]
        size = fixed + varint_size(delta)
        if delta and _HEAD_BYTES + at - ends[batch - 1] + varint_size(size) + size >= batch_bytes:
            ends[batch], counts[batch] = at, delta
            batch, delta = batch + 1, 0
            size = fixed + 1
        at = varint(size, out, at)
        out[at] = out[at + 1] = 0
        at = varint(delta, out, at + 2)
        at = varint(key_size, out, at)
        at = copy(key_data, key, key + max(key_size, 0), out, at)
        at = varint(value_size, out, at)
        if label == OTHER:
            at = copy(other_data, other_starts[i], other_starts[i] + value_size, out, at)
        else:
            at = write_number(offsets[i], offset_size, out, _piece(pieces, piece_ends, _OFFSET, out, at))
            at = write_number(after, after_size, out, _piece(pieces, piece_ends, _AFTER, out, at))
            at = write_number(np.int64(crcs[i]), crc_size, out, _piece(pieces, piece_ends, _CRC, out, at))
            at = _piece(pieces, piece_ends, piece, out, at)
            if label >= 0:
                at = _score(micros[i], score_size, out, at)
            if id_sizes[i] >= 0:
                at = _piece(pieces, piece_ends, _ID, out, at)
                at = copy(id_data, id_starts[i], id_starts[i] + id_sizes[i], out, at)
                out[at] = _QUOTE
                at += 1
            out[at] = _BRACE
            at += 1
        at = copy(blocks, block_ends[block], block_ends[block + 1], out, at)
        delta += 1
        after, after_size = offsets[i], offset_size
    ends[batch], counts[batch] = at, delta
    return batch
