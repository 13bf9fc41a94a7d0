"""Encode: one answer a request, and a dead letter for each request that failed.

Nearly all answers are plain: `expired`, or `ok` with a label and neither a ranking nor an explanation. One compiled
call writes the plain answers of a slice as JSON. It holds no lock, takes a quarter of the time of
:func:`headrace_schemas.codec.encode_result`, and writes the same bytes. The other answers go through that function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.dead_letters import Keep, dead_letter, keep_whole
from headrace.kafka.interface import Outgoing, Record, crc_of
from headrace.model.compiling import kernel
from headrace.worker.stages.batch import Slice
from headrace.worker.stages.decode import EXPIRED, FAILED, Column, Decoded, Failure
from headrace.worker.stages.infer import MICROS, Inferred, Model
from headrace_schemas.codec import encode_result
from headrace_schemas.errors import UnknownContentTypeError
from headrace_schemas.headers import CONTENT_TYPE, JSON, Headers, content_type
from headrace_schemas.paths import Copy
from headrace_schemas.records import ClassifyResult, Score, Status

OTHER = FAILED
"""Instead of a label's index, of an answer that is not plain, as a failed one never is."""

_FRAME = 120
"""An answer without its fragment and its id has fewer bytes."""
_OFFSET, _AFTER, _CRC, _ID = (
    np.frombuffer(part, np.uint8) for part in (b'{"offset":', b',"after":', b',"crc":', b',"id":"')
)


class Style:
    """The format of answers: content type, and headers copied from the request by ``copy``.

    ``copies_values`` says whether ``copy`` reads the request's value too, ``keep`` decides what a dead letter keeps.
    """

    def __init__(self, content_type: str, copy: Copy, *, copies_values: bool, keep: Keep = keep_whole) -> None:
        self.content_type = content_type
        self.keep = keep
        self._copy = copy
        self._copies_values = copies_values
        # Most requests of a topic have the same headers. The cache is small: headers may be large.
        self._of_headers = lru_cache(maxsize=64)(self._headers)

    def headers(self, record: Record) -> Headers:
        """The headers of the answer to ``record``. A record without a content type is JSON."""
        headers = tuple(record.headers)
        return self._headers(headers, record.value) if self._copies_values else self._of_headers(headers)

    def _headers(self, headers: Headers, value: bytes | None = None) -> Headers:
        try:
            copied = self._copy(value, content_type(headers), headers)
        except UnknownContentTypeError:
            copied = self._copy(None, JSON, headers)
        if self.content_type == JSON:
            return copied
        return ((CONTENT_TYPE, self.content_type.encode()), *copied)


class Encoded(msgspec.Struct, frozen=True, eq=False):
    """The answers of one slice in the order of their requests, and the dead letters to publish before them.

    ``abstained`` counts the answers that are ``ok`` without a label.
    """

    slice: Slice
    answers: list[Outgoing]
    dead_letters: list[Outgoing]
    statuses: dict[str, int]
    errors: Counter[str]
    abstained: int


class _Outcome(msgspec.Struct, frozen=True, eq=False):
    """For each request of a slice the index of its label ``int32[n]``, EXPIRED or FAILED; its score in millionths
    ``int64[n]``; whether it abstains ``bool[n]``; and the failures by place.
    """

    labels: NDArray[np.int32]
    micros: NDArray[np.int64]
    abstain: NDArray[np.bool_]
    failures: dict[int, Failure]


def encode(
    slices: Sequence[Slice], decoded: Decoded, inferred: Inferred, *, model: Model, style: Style
) -> list[Encoded]:
    """Encode every slice of a batch, as ``model`` answered it."""
    return [
        _encode_slice(piece, column, decoded, inferred, model, style)
        for piece, column in zip(slices, decoded.columns, strict=True)
    ]


def _encode_slice(
    piece: Slice, column: Column, decoded: Decoded, inferred: Inferred, model: Model, style: Style
) -> Encoded:
    records = [request.record for request in piece.requests]
    crcs = [crc_of(record) for record in records]
    ids = [decoded.ids[text] if text >= 0 else None for text in column.texts] if _any(decoded.ids) else []
    outcome = _outcome(column, inferred, model.threshold)
    values: list[bytes | None] = [None] * len(records)
    if style.content_type == JSON and not inferred.rankings:
        values = _plain_values(piece, records, crcs, ids, outcome, model, _explained(column, inferred))
    answers: list[Outgoing] = []
    for place, (record, value) in enumerate(zip(records, values, strict=True)):
        if value is None:
            answer = _answer(piece, place, crcs[place], ids, column, outcome, inferred, model)
            value = encode_result(answer, style.content_type)  # noqa: PLW2901 - the answer is not plain
        answers.append(Outgoing(value, record.key, style.headers(record)))
    letters = [
        dead_letter(
            records[place],
            stage=failure.stage,
            error=failure.code,
            message=failure.message,
            version=model.version,
            keep=style.keep,
        )
        for place, failure in outcome.failures.items()
    ]
    expired = column.texts.count(EXPIRED)
    statuses: dict[str, int] = {
        Status.OK: len(answers) - expired - len(letters),
        Status.EXPIRED: expired,
        Status.FAILED: len(letters),
    }
    errors = Counter(failure.code for failure in outcome.failures.values())
    return Encoded(piece, answers, letters, statuses, errors, int(outcome.abstain.sum()))


def _explained(column: Column, inferred: Inferred) -> list[int]:
    """The places in the slice whose answers have an explanation."""
    if not inferred.explanations:
        return []
    return [place for place, text in enumerate(column.texts) if text in inferred.explanations]


def _any(ids: list[str | None]) -> bool:
    return ids.count(None) < len(ids)


def _outcome(column: Column, inferred: Inferred, threshold: float | None) -> _Outcome:
    texts = np.array(column.texts, np.int64)
    labels = texts.astype(np.int32)
    micros = np.zeros(len(texts), np.int64)
    answered = texts >= 0
    labels[answered] = inferred.labels[texts[answered]]
    micros[answered] = inferred.micros[texts[answered]]
    failures = column.failures
    if inferred.failures:
        of_model = {place: inferred.failures.get(text) for place, text in enumerate(column.texts)}
        both = failures | {place: failure for place, failure in of_model.items() if failure is not None}
        failures = dict(sorted(both.items()))
    abstain = (labels >= 0) & (micros < (0.0 if threshold is None else threshold) * MICROS)
    return _Outcome(labels, micros, abstain, failures)


def _plain_values(
    piece: Slice,
    records: Sequence[Record],
    crcs: Sequence[int],
    ids: Sequence[str | None],
    outcome: _Outcome,
    model: Model,
    explained: Collection[int],
) -> list[bytes | None]:
    labels = np.where(outcome.abstain, np.int32(OTHER), outcome.labels)
    labels[list(explained)] = OTHER
    if piece.lost is not None:
        labels[0] = OTHER
    offsets = np.fromiter((record.offset for record in records), np.int64, len(records))
    writer = plain_answers(model.version, model.labels)
    return writer.write(offsets, piece.after, np.array(crcs, np.uint32), labels, outcome.micros, ids)


def _answer(
    piece: Slice,
    place: int,
    crc: int,
    ids: Sequence[str | None],
    column: Column,
    outcome: _Outcome,
    inferred: Inferred,
    model: Model,
) -> ClassifyResult:
    """The answer to the request at ``place``, field by field."""
    after = piece.requests[place - 1].record.offset if place else piece.after
    label = int(outcome.labels[place])
    result = ClassifyResult(
        offset=piece.requests[place].record.offset,
        after=after,
        crc=crc,
        status=Status.EXPIRED if label == EXPIRED else Status.FAILED if label == FAILED else Status.OK,
        version=model.version,
        id=ids[place] if ids else None,
        reason=outcome.failures[place].code if label == FAILED else None,
        lost=None if place else piece.lost,
    )
    if label < 0:
        return result
    if inferred.explanations:
        result = msgspec.structs.replace(result, explanation=inferred.explanations.get(column.texts[place]))
    score = int(outcome.micros[place]) / MICROS
    ranking = _ranking(inferred, column.texts[place], model.labels)
    if outcome.abstain[place]:
        # The ranking still says what the label would have been.
        return msgspec.structs.replace(result, score=score, ranking=ranking or (Score(model.labels[label], score),))
    return msgspec.structs.replace(result, label=model.labels[label], score=score, ranking=ranking)


def _ranking(inferred: Inferred, text: int, labels: Sequence[str]) -> tuple[Score, ...]:
    if not inferred.rankings:
        return ()
    return tuple(Score(labels[label], score) for label, score in inferred.rankings[text])


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
        """Write the answers to the requests at ``offsets``; None for an answer that is not plain.

        ``after`` is the offset of the request before them. ``labels`` are indexes, EXPIRED or OTHER; ``micros`` are
        scores in millionths. ``ids`` is empty when no request has one. An id that needs escapes in JSON is not plain.
        """
        # An empty id is an id too, and an empty span would leave it out.
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
