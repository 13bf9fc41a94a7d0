"""Encode: one answer a request, and a dead letter for each that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.dead_letters import Keep, dead_letter, keep_whole
from headrace.kafka.interface import Outgoing, Record, crc_of
from headrace.worker.stages.batch import Slice
from headrace.worker.stages.decode import EXPIRED, FAILED, Column, Decoded, Failure
from headrace.worker.stages.infer import Inferred, Model
from headrace.worker.stages.json_kernel import MICROS, OTHER, plain_answers
from headrace_schemas.codec import encode_result
from headrace_schemas.errors import UnknownContentTypeError
from headrace_schemas.headers import CONTENT_TYPE, JSON, Headers, content_type
from headrace_schemas.paths import Copy
from headrace_schemas.records import ClassifyResult, Score, Status


class Style:
    """How answers look: their content type, and what they repeat of the request in headers; and what dead letters keep.

    ``copies_values`` says whether ``copy`` looks into a request's value too.
    """

    def __init__(self, content_type: str, copy: Copy, *, copies_values: bool, keep: Keep = keep_whole) -> None:
        self.content_type = content_type
        self.keep = keep
        self._copy = copy
        self._copies_values = copies_values
        # Most requests of a topic have the same headers. Few are kept: they may be large.
        self._of_headers = lru_cache(maxsize=64)(self._headers)

    def headers(self, record: Record) -> Headers:
        """The headers of the answer to ``record``. JSON is what a record without a content type is."""
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
    """The answers of one slice, in the order of their requests, and the dead letters to be acknowledged before them.

    ``abstained`` of them are ``ok`` without a label.
    """

    slice: Slice
    answers: list[Outgoing]
    dead_letters: list[Outgoing]
    statuses: dict[str, int]
    errors: Counter[str]
    abstained: int


class _Outcome(msgspec.Struct, frozen=True, eq=False):
    """How the requests of a slice ended: the index of each one's label ``int32[n]``, EXPIRED or FAILED; scores in
    millionths ``int64[n]``; which abstain ``bool[n]``; and failures by place.
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
        values = _plain_values(piece, records, crcs, ids, outcome, model)
    answers: list[Outgoing] = []
    for place, (record, value) in enumerate(zip(records, values, strict=True)):
        if value is None:
            answer = _answer(piece, place, crcs[place], ids, column, outcome, inferred, model)
            value = encode_result(answer, style.content_type)  # noqa: PLW2901 - what was not plain
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
) -> list[bytes | None]:
    labels = np.where(outcome.abstain, np.int32(OTHER), outcome.labels)
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
    """Any answer, field by field."""
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
    score = int(outcome.micros[place]) / MICROS
    ranking = _ranking(inferred, column.texts[place], model.labels)
    if outcome.abstain[place]:
        # What the label would have been is still said.
        return msgspec.structs.replace(result, score=score, ranking=ranking or (Score(model.labels[label], score),))
    return msgspec.structs.replace(result, label=model.labels[label], score=score, ranking=ranking)


def _ranking(inferred: Inferred, text: int, labels: Sequence[str]) -> tuple[Score, ...]:
    if not inferred.rankings:
        return ()
    return tuple(Score(labels[label], score) for label, score in inferred.rankings[text])
