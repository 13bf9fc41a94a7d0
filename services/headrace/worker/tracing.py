"""What spans say of a worker's batch: how long its requests waited, which version answered, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headrace.kafka.tracing import UNTRACED, BatchSpans, BatchTrace
from headrace.process.tracing import Span
from headrace.worker.stages.batch import Batch
from headrace.worker.stages.encode import Encoded


def received(spans: BatchSpans, batch: Batch, now_s: float) -> BatchTrace:
    """The trace of ``batch``, which was cut at ``now_s`` of the clock that its requests have."""
    if not spans.on:
        return UNTRACED
    slices = batch.slices
    fetched = [piece.requests.records for piece in slices]
    return spans.received(
        [headers for records in fetched for place in records.header_kinds()[1] if (headers := records.headers(place))],
        batch.size,
        waited_s=now_s - min(piece.requests.oldest().came_s for piece in slices),
        partition=slices[0].partition.name.partition if len(slices) == 1 else None,
    )


def answered(span: Span, version: str, encoded: Sequence[Encoded]) -> None:
    """Say on ``span`` what came of a batch. It failed where a request did, by the commonest of their errors."""
    if not span.recorded:
        return
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for piece in encoded:
        statuses.update(piece.statuses)
        errors.update(piece.errors)
    span.set(
        {
            "headrace.version": version,
            **{f"headrace.answers.{status}": count for status, count in statuses.items() if count},
        }
    )
    if errors:
        span.fail(errors.most_common(1)[0][0])
