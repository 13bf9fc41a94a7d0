"""Encode: one answer a request, and a dead letter for each that failed."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import msgspec

from headrace.inference.batch import Slice
from headrace.inference.decode import Decoded, Failure
from headrace.inference.infer import Inferred, Model
from headrace.kafka.dead_letters import dead_letter
from headrace.kafka.interface import Outgoing, Record
from headrace_schemas.codec import encode_result
from headrace_schemas.errors import UnknownContentTypeError
from headrace_schemas.headers import CONTENT_TYPE, JSON, Headers, content_type
from headrace_schemas.paths import Copy
from headrace_schemas.records import ClassifyResult, Score, Status


class Style(msgspec.Struct, frozen=True):
    """How answers look: their content type, and what they repeat of the request in headers."""

    content_type: str
    copy: Copy

    def headers(self, record: Record) -> Headers:
        """The headers of the answer to ``record``. JSON is what a record without a content type is."""
        try:
            copied = self.copy(record.value, content_type(record.headers), record.headers)
        except UnknownContentTypeError:
            copied = self.copy(None, JSON, record.headers)
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


def encode(
    slices: Sequence[Slice], decoded: Decoded, inferred: Inferred, *, model: Model, style: Style
) -> list[Encoded]:
    """Encode every slice of a batch, as ``model`` answered it."""
    return [
        _encode_slice(piece, sources, decoded, inferred, model, style)
        for piece, sources in zip(slices, decoded.sources, strict=True)
    ]


def _encode_slice(
    piece: Slice,
    sources: Sequence[int | Failure | None],
    decoded: Decoded,
    inferred: Inferred,
    model: Model,
    style: Style,
) -> Encoded:
    version, labels = model.version, model.labels
    threshold = 0.0 if model.threshold is None else model.threshold
    answers: list[Outgoing] = []
    dead_letters: list[Outgoing] = []
    after, lost = piece.after, piece.lost
    errors: Counter[str] = Counter()
    expired = abstained = 0
    for request, source in zip(piece.requests, sources, strict=True):
        record = request.record
        offset = record.offset
        crc = zlib.crc32(record.value or b"")
        label = source if source is None or isinstance(source, Failure) else inferred.labels[source]
        if label is None:
            expired += 1
            result = ClassifyResult(
                offset=offset, after=after, crc=crc, status=Status.EXPIRED, version=version, lost=lost
            )
        elif isinstance(label, Failure):
            letter = dead_letter(record, stage=label.stage, error=label.code, message=label.message, version=version)
            dead_letters.append(letter)
            errors[label.code] += 1
            result = ClassifyResult(
                offset=offset,
                after=after,
                crc=crc,
                status=Status.FAILED,
                version=version,
                id=_id(source, decoded),
                reason=label.code,
                lost=lost,
            )
        else:
            assert isinstance(source, int)  # noqa: S101 - only a text has a label
            score = inferred.scores[source]
            ranking = _ranking(inferred, source, labels)
            shown: str | None = labels[label]
            if score < threshold:
                # What the label would have been is still said.
                ranking, shown = ranking or (Score(labels[label], score),), None
                abstained += 1
            result = ClassifyResult(
                offset=offset,
                after=after,
                crc=crc,
                status=Status.OK,
                version=version,
                label=shown,
                score=score,
                ranking=ranking,
                id=decoded.ids[source],
                lost=lost,
            )
        answers.append(Outgoing(encode_result(result, style.content_type), record.key, style.headers(record)))
        after, lost = offset, None
    statuses: dict[str, int] = {
        Status.OK: len(answers) - expired - len(dead_letters),
        Status.EXPIRED: expired,
        Status.FAILED: len(dead_letters),
    }
    return Encoded(piece, answers, dead_letters, statuses, errors, abstained)


def _ranking(inferred: Inferred, text: int, labels: Sequence[str]) -> tuple[Score, ...]:
    if not inferred.rankings:
        return ()
    return tuple(Score(labels[label], score) for label, score in inferred.rankings[text])


def _id(source: int | Failure | None, decoded: Decoded) -> str | None:
    return decoded.ids[source] if isinstance(source, int) else None
