"""Writes a slice's answers as Kafka's record batches, in one compiled call that holds no lock.

Nearly all answers are plain: `expired`, or `ok` with a label and neither a ranking nor an explanation. Their JSON is
written here too, the same bytes as :func:`headrace_schemas.codec.encode_result` writes. The values of the other answers
are given. Keys and header blocks are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.packed_records import HEAD, PackedBatch, PackedRecords
from headrace.model.compiling import kernel
from headrace.worker.request_values import EXPIRED, FAILED
from headrace.worker.stages.infer import MICROS
from headrace_schemas.records import Status

OTHER = FAILED
"""Instead of a label's index, of an answer whose value is given, as that of a failed one always is."""

_FRAME = 120
"""The JSON of an answer without its fragment and its id has fewer bytes."""
_RECORD = 5 * 5 + 1
"""A record without key, value and headers has at most so many bytes: five numbers and the attributes."""
_HEAD_BYTES = HEAD.size
_OFFSET, _AFTER, _CRC, _ID = (
    np.frombuffer(part, np.uint8) for part in (b'{"offset":', b',"after":', b',"crc":', b',"id":"')
)


class Spans(msgspec.Struct, frozen=True, eq=False):
    """For each request some bytes of ``data`` uint8: where they start ``int64[n]`` and how many ``int64[n]``, -1 for
    None.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def spans_of(texts: Mapping[int, bytes], count: int) -> Spans:
    """The spans of ``texts``, which are by place; the others of ``count`` are None."""
    starts, sizes = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    at = 0
    for place, text in texts.items():
        starts[place], sizes[place] = at, len(text)
        at += len(text)
    return Spans(np.frombuffer(b"".join(texts.values()), np.uint8), starts, sizes)


NO_OTHERS = spans_of({}, 0)
"""Where no answer is OTHER."""


class AnswerColumns(msgspec.Struct, frozen=True, eq=False):
    """What is written of the answers to consecutive requests; ``after`` is the offset of the request before them.

    ``offsets`` int64[n] and ``crcs`` uint32[n] are those of the requests, ``keys`` theirs too. ``labels`` int32[n] are
    indexes, EXPIRED or OTHER, ``micros`` int64[n] scores in millionths, ``ids`` as they stand between the quotes of
    JSON, ``others`` the values of the answers that are OTHER. ``headers`` int32[n] are indexes of ``header_blocks``,
    which :func:`headrace.kafka.packed_records.packed_headers` makes.
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
        copied, longest_id = _copied(answers.ids.sizes, answers.keys.sizes, answers.headers, blocks)
        out = np.empty(count * (_RECORD + self._longest) + copied + len(answers.others.data), np.uint8)
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
            self._fragments,
            self._ends,
            batch_bytes,
            np.empty(self._longest + longest_id, np.uint8),
            out,
            ends,
            counts,
        )
        return PackedRecords(
            [
                PackedBatch(out[start:end].tobytes(), size)
                for (start, end), size in zip(
                    pairwise(ends[: batches + 1].tolist()), counts[1 : batches + 1].tolist(), strict=True
                )
            ]
        )


@lru_cache(maxsize=8)
def answer_writer(version: str, labels: tuple[str, ...]) -> AnswerWriter:
    """The writer of a version's answers, made once."""
    return AnswerWriter(version, labels)


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


@kernel
def _copy(source, start, end, out, at):  # type: ignore[no-untyped-def]
    for i in range(start, end):
        out[at] = source[i]
        at += 1
    return at


@kernel
def _copied(id_sizes, key_sizes, headers, block_ends):  # type: ignore[no-untyped-def]
    """How many bytes of ids, keys and header blocks are written, and the size of the longest id."""
    total, longest = 0, 0
    for i in range(len(headers)):
        block = headers[i]
        total += max(id_sizes[i], 0) + max(key_sizes[i], 0) + block_ends[block + 1] - block_ends[block]
        longest = max(longest, id_sizes[i])
    return total, longest


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
def _plain(offset, after, crc, label, micros, ids, start, size, fragments, fragment_ends, out):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write the JSON of a plain answer to the start of ``out``; returns its size. ``size`` -1: there is no id."""
    at = _copy(_OFFSET, 0, len(_OFFSET), out, 0)
    at = _number(offset, out, at)
    at = _copy(_AFTER, 0, len(_AFTER), out, at)
    at = _number(after, out, at)
    at = _copy(_CRC, 0, len(_CRC), out, at)
    at = _number(np.int64(crc), out, at)
    fragment = len(fragment_ends) - 2 if label == EXPIRED else label
    at = _copy(fragments, fragment_ends[fragment], fragment_ends[fragment + 1], out, at)
    if label != EXPIRED:
        at = _score(micros, out, at)
    if size >= 0:
        at = _copy(_ID, 0, len(_ID), out, at)
        at = _copy(ids, start, start + size, out, at)
        out[at] = 34
        at += 1
    out[at] = 125
    return at + 1


@kernel
def _varint_size(number):  # type: ignore[no-untyped-def]
    size, rest = 1, (number << 1) ^ (number >> 63)
    while rest > 0x7F:
        size += 1
        rest >>= 7
    return size


@kernel
def _varint(number, out, at):  # type: ignore[no-untyped-def]
    rest = (number << 1) ^ (number >> 63)
    while rest > 0x7F:
        out[at] = 0x80 | (rest & 0x7F)
        at += 1
        rest >>= 7
    out[at] = rest
    return at + 1


@kernel
def _write(  # type: ignore[no-untyped-def]  # noqa: PLR0917
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
    fragments,
    fragment_ends,
    batch_bytes,
    value,
    out,
    ends,
    counts,
):
    """Write the records of all answers into ``out``; returns the number b of batches.

    ``ends[1 : b + 1]`` are where the batches end, ``counts[1 : b + 1]`` how many records they have. ``value`` has room
    for the longest plain value.
    """
    id_data, id_starts, id_sizes = ids
    key_data, key_starts, key_sizes = keys
    other_data, other_starts, other_sizes = others
    at, batch, delta = 0, 1, 0
    for i in range(len(offsets)):
        key, key_size = key_starts[i], key_sizes[i]
        block = headers[i]
        if labels[i] == OTHER:
            value_size = other_sizes[i]
        else:
            value_size = _plain(
                offsets[i],
                after,
                crcs[i],
                labels[i],
                micros[i],
                id_data,
                id_starts[i],
                id_sizes[i],
                fragments,
                fragment_ends,
                value,
            )
        # Attributes, no difference of time, key, value, headers; and then the difference of offsets.
        fixed = 2 + _varint_size(key_size) + max(key_size, 0) + _varint_size(value_size) + value_size
        fixed += block_ends[block + 1] - block_ends[block]
        size = fixed + _varint_size(delta)
        if delta and _HEAD_BYTES + at - ends[batch - 1] + _varint_size(size) + size >= batch_bytes:
            ends[batch], counts[batch] = at, delta
            batch, delta = batch + 1, 0
            size = fixed + 1
        at = _varint(size, out, at)
        out[at] = out[at + 1] = 0
        at = _varint(delta, out, at + 2)
        at = _varint(key_size, out, at)
        at = _copy(key_data, key, key + key_size, out, at)
        at = _varint(value_size, out, at)
        if labels[i] == OTHER:
            at = _copy(other_data, other_starts[i], other_starts[i] + value_size, out, at)
        else:
            at = _copy(value, 0, value_size, out, at)
        at = _copy(blocks, block_ends[block], block_ends[block + 1], out, at)
        delta += 1
        after = offsets[i]
    ends[batch], counts[batch] = at, delta
    return batch
