"""Records through the stages of a worker that do no I/O, as one batch of one partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headrace.kafka.interface import Record, TopicPartition
from headrace.model.backends.interface import Backend
from headrace.worker.partitions.partition import Partition
from headrace.worker.pipeline import Computed, compute
from headrace.worker.request_values import value_reader
from headrace.worker.stages.batch import Batch, Slice
from headrace.worker.stages.decode import admit
from headrace.worker.stages.encode import Style
from headrace.worker.stages.infer import Breaker, Model
from headrace.worker.versions import Served
from headrace_schemas.headers import JSON
from headrace_schemas.paths import RequestShape, compile_copy

NOW_MS = 1000.0
AFTER = 4
LABELS = ("a", "b", "c")


def staged(
    records: Sequence[Record],
    backend: Backend,
    *,
    shape: RequestShape,
    form: str = JSON,
    ranking: int = 0,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> Computed:
    """Answer ``records``, which follow the request at :data:`AFTER`, at :data:`NOW_MS`."""
    partition = Partition(TopicPartition(records[0].topic, records[0].partition))
    loop = asyncio.new_event_loop()
    try:
        done = loop.create_future()
        piece = Slice(partition, admit(records, 0.0, 0), AFTER, None, None, None, done)
        model = Model("v", LABELS, backend)
        return compute(
            Batch([piece], NOW_MS, len(records)),
            Served(model, model, Breaker(), None, asyncio.Event()),
            reader=value_reader(shape),
            style=Style(form, compile_copy(shape), copies_values=bool(shape.copy_fields), batch_bytes=1 << 19),
            ranking=ranking,
            explains=True,
            monotonic=monotonic,
        )
    finally:
        loop.close()
