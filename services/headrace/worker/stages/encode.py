"""Encode: one answer a request, and a dead letter for each request that failed.

One compiled call (:mod:`headrace.worker.answer_records`) writes the answers of a slice as Kafka's record batches, and
one its dead letters (:mod:`headrace.worker.dead_letter_records`). The values of the few answers that are not plain go
through :func:`headrace_schemas.codec.encode_result` before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.columns import Columns
from headrace.kafka.dead_letters import Keep, keep_whole
from headrace.kafka.interface import Outgoing
from headrace.kafka.packed_records import PackedRecords, packed_headers
from headrace.kafka.record_writing import Spans, spans_of
from headrace.model.compiling import kernel
from headrace.worker.answer_records import FIRST_REASON, NO_OTHERS, OTHER, AnswerColumns, answer_writer
from headrace.worker.dead_letter_records import Failed, Failure, write_dead_letters
from headrace.worker.dead_letter_records import warm as warm_dead_letters
from headrace.worker.request_values import EXPIRED
from headrace.worker.stages.batch import Slice
from headrace.worker.stages.decode import Column, Decoded
from headrace.worker.stages.infer import MICROS, Inferred, Model
from headrace_schemas.codec import encode_result
from headrace_schemas.errors import UnknownContentTypeError
from headrace_schemas.headers import CONTENT_TYPE, JSON, Headers, content_type
from headrace_schemas.paths import Copy
from headrace_schemas.records import ClassifyResult, Score, Status


class Style:
    """The format of answers: content type, and headers copied from the request by ``copy``.

    ``copies_values`` says whether ``copy`` reads the request's value too, ``keep`` decides what a dead letter keeps.
    ``batch_bytes`` is that of the cluster.
    """

    def __init__(
        self, content_type: str, copy: Copy, *, copies_values: bool, batch_bytes: int, keep: Keep = keep_whole
    ) -> None:
        self.content_type = content_type
        self.keep = keep
        self.batch_bytes = batch_bytes
        self._copy = copy
        self._copies_values = copies_values
        # Most requests of a topic have the same headers. The cache is small: headers may be large.
        self._block_of = lru_cache(maxsize=64)(lambda headers: packed_headers(self._headers(headers)))

    def header_blocks(self, records: Columns) -> tuple[NDArray[np.int32], list[bytes]]:
        """For each answer to ``records`` the index of its packed headers ``int32[n]``, and those."""
        if self._copies_values:
            places: dict[Headers, int] = {}
            each = [self._headers(tuple(records.headers(at)), records.value(at)) for at in range(len(records))]
            indexes = [places.setdefault(headers, len(places)) for headers in each]
            return np.array(indexes, np.int32), [packed_headers(headers) for headers in places]
        kinds, first = records.header_kinds()
        return kinds, [self._block_of(tuple(records.headers(at))) for at in first]

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
    answers: PackedRecords
    dead_letters: Sequence[Outgoing]
    statuses: dict[str, int]
    errors: dict[str, int]
    abstained: int


class _Outcome(msgspec.Struct, frozen=True, eq=False):
    """For each request of a slice the index of its label ``int32[n]``, as :class:`AnswerColumns` has it; its score in
    millionths ``int64[n]``; whether it abstains ``bool[n]``; which of ``failures`` it is ``int32[n]``, -1 for none; the
    codes of these, where there are any; and how many expired and abstain.
    """

    labels: NDArray[np.int32]
    micros: NDArray[np.int64]
    abstain: NDArray[np.bool_]
    faults: NDArray[np.int32]
    failures: Sequence[Failure]
    reasons: tuple[str, ...]
    expired: int
    abstained: int


def encode(
    slices: Sequence[Slice], decoded: Decoded, inferred: Inferred, *, model: Model, style: Style
) -> list[Encoded]:
    """Encode every slice of a batch, as ``model`` answered it."""
    return [
        _encode_slice(piece, column, inferred, model, style)
        for piece, column in zip(slices, decoded.columns, strict=True)
    ]


def _encode_slice(piece: Slice, column: Column, inferred: Inferred, model: Model, style: Style) -> Encoded:
    records = piece.requests.records
    crcs = records.crcs()
    outcome = _outcome(column, inferred, model.threshold)
    labels = _plain_labels(piece, column, outcome, inferred, style)
    values = {
        place: encode_result(
            _answer(piece, place, int(crcs[place]), column, outcome, inferred, model), style.content_type
        )
        for place in np.flatnonzero(labels == OTHER).tolist()
    }
    headers, header_blocks = style.header_blocks(records)
    columns = AnswerColumns(
        offsets=records.offsets,
        after=piece.after,
        crcs=crcs,
        labels=labels,
        micros=outcome.micros,
        ids=Spans(column.id_data, column.ids[0], column.ids[1]),
        keys=Spans(records.data, records.key_starts, records.key_lengths),
        others=spans_of(values, len(records)) if values else NO_OTHERS,
        headers=headers,
        header_blocks=header_blocks,
    )
    writer = answer_writer(model.version, model.labels, outcome.reasons)
    answers = writer.write(columns, batch_bytes=style.batch_bytes)
    letters: Sequence[Outgoing] = ()
    errors: dict[str, int] = {}
    if outcome.reasons:
        places = np.flatnonzero(outcome.faults >= 0)
        failed = Failed(records, places, outcome.faults[places], outcome.failures)
        letters = write_dead_letters(failed, version=model.version, keep=style.keep, batch_bytes=style.batch_bytes)
        for fault, count in enumerate(np.bincount(failed.faults).tolist()):
            if count:
                code = outcome.failures[fault].code
                errors[code] = errors.get(code, 0) + count
    statuses: dict[str, int] = {
        Status.OK: len(answers) - outcome.expired - len(letters),
        Status.EXPIRED: outcome.expired,
        Status.FAILED: len(letters),
    }
    return Encoded(piece, answers, letters, statuses, errors, outcome.abstained)


def _explained(column: Column, inferred: Inferred) -> list[int]:
    """The places in the slice whose answers have an explanation."""
    if not inferred.explanations:
        return []
    return [place for place, text in enumerate(column.texts.tolist()) if text in inferred.explanations]


def _outcome(column: Column, inferred: Inferred, threshold: float | None) -> _Outcome:
    texts = column.texts
    labels, micros, abstain = np.empty(len(texts), np.int32), np.empty(len(texts), np.int64), np.empty(len(texts), bool)
    least = (0.0 if threshold is None else threshold) * MICROS
    faults, failures = _failures(column, inferred)
    reasons = tuple(dict.fromkeys(failure.code for failure in failures))
    reason_of = np.array([reasons.index(failure.code) for failure in failures], np.int32)
    expired, abstained = _take(
        texts, inferred.labels, inferred.micros, faults, reason_of, column.ids[1], least, labels, micros, abstain
    )
    return _Outcome(labels, micros, abstain, faults, failures, reasons, expired, abstained)


def _failures(column: Column, inferred: Inferred) -> tuple[NDArray[np.int32], Sequence[Failure]]:
    """For each request which of the failures it is; those of requests that were not decoded, and of the model."""
    if not inferred.failures:
        return column.faults, column.failures
    faults = column.faults.copy()
    numbers = {failure: number for number, failure in enumerate(column.failures)}
    for place, text in enumerate(column.texts.tolist()):
        failure = inferred.failures.get(text)
        if failure is not None:
            faults[place] = numbers.setdefault(failure, len(numbers))
    return faults, tuple(numbers)


@kernel
def _take(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    texts, text_labels, text_micros, faults, reason_of, id_sizes, least, labels, micros, abstain
):
    """Fill the last three, for each request; returns how many have expired and how many abstain: score below ``least``.

    Compiled, because a slice is small at a low rate, and each operation of numpy takes a microsecond.
    """
    expired = abstained = 0
    for i in range(len(texts)):
        text = texts[i]
        labels[i], micros[i] = text, 0
        if faults[i] >= 0:
            labels[i] = OTHER if id_sizes[i] >= 0 else FIRST_REASON - reason_of[faults[i]]
        elif text >= 0:
            labels[i], micros[i] = text_labels[text], text_micros[text]
        abstain[i] = labels[i] >= 0 and micros[i] < least
        expired += labels[i] == EXPIRED
        abstained += abstain[i]
    return expired, abstained


def warm(version: str, labels: tuple[str, ...]) -> None:
    """Load the kernels of this stage from numba's cache, or compile them, and make the writer of the version."""
    texts, none = np.zeros(1, np.int64), np.zeros(1, np.int32)
    _take(texts, none, texts, none, none, texts, 0.0, none.copy(), texts.copy(), np.empty(1, bool))
    warm_dead_letters()
    answer_writer(version, labels).warm()


def _plain_labels(
    piece: Slice, column: Column, outcome: _Outcome, inferred: Inferred, style: Style
) -> NDArray[np.int32]:
    """``outcome.labels``, with OTHER for each answer that is not plain."""
    if style.content_type != JSON or inferred.rankings:
        return np.full(len(column.texts), OTHER, np.int32)
    if not (outcome.abstained or inferred.explanations or piece.lost):
        return outcome.labels
    labels = np.where(outcome.abstain, np.int32(OTHER), outcome.labels)
    labels[_explained(column, inferred)] = OTHER
    if piece.lost is not None:
        labels[0] = OTHER
    return labels


def _answer(
    piece: Slice,
    place: int,
    crc: int,
    column: Column,
    outcome: _Outcome,
    inferred: Inferred,
    model: Model,
) -> ClassifyResult:
    """The answer to the request at ``place``, field by field."""
    offsets = piece.requests.records.offsets
    after = int(offsets[place - 1]) if place else piece.after
    label, fault = int(outcome.labels[place]), int(outcome.faults[place])
    result = ClassifyResult(
        offset=int(offsets[place]),
        after=after,
        crc=crc,
        status=Status.EXPIRED if label == EXPIRED else Status.OK if fault < 0 else Status.FAILED,
        version=model.version,
        id=column.id(place),
        reason=None if fault < 0 else outcome.failures[fault].code,
        lost=None if place else piece.lost,
    )
    if label < 0:
        return result
    if inferred.explanations:
        result = msgspec.structs.replace(result, explanation=inferred.explanations.get(int(column.texts[place])))
    score = int(outcome.micros[place]) / MICROS
    ranking = _ranking(inferred, int(column.texts[place]), model.labels)
    if outcome.abstain[place]:
        # The ranking still says what the label would have been.
        return msgspec.structs.replace(result, score=score, ranking=ranking or (Score(model.labels[label], score),))
    return msgspec.structs.replace(result, label=model.labels[label], score=score, ranking=ranking)


def _ranking(inferred: Inferred, text: int, labels: Sequence[str]) -> tuple[Score, ...]:
    if not inferred.rankings:
        return ()
    return tuple(Score(labels[label], score) for label, score in inferred.rankings[text])
