"""What tracing adds to a batch: CPU microseconds, off and on, by its requests and whether they carry a trace.

    python -m tests.benchmarks.tracing [--rounds 7]

The calls are those that a worker makes for each batch, beside a producer that does nothing. What the thread of spans
takes to encode and send is counted where a trace is recorded. Of the rounds the least counts: others were disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from headrace.kafka.interface import Appended, FetchedRecord, Outgoing, TopicPartition
from headrace.kafka.packed_records import PackedRecords
from headrace.kafka.tracing import BatchSpans, traced
from headrace.process.otlp import SendingTracer
from headrace.process.tracing import NO_TRACER, Tracer
from headrace.worker.partitions.partition import Partition
from headrace.worker.stages.batch import Batch, Slice
from headrace.worker.stages.decode import admit
from headrace.worker.stages.encode import Encoded
from headrace.worker.tracing import answered, received
from headrace_schemas.trace_context import TraceContext
from tests.support.raw_batches import packed_records

SIZES = (1, 64, 1024)


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


class Accepting:
    """A producer that has appended everything at once."""

    dead = False

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        del topic, records
        return Appended(partition, 0)


def batch_of(size: int, *, carried: bool) -> tuple[Batch, list[Encoded], PackedRecords]:
    """A batch of one partition, its outcome and its answers. The traces that requests carry are not sampled."""
    records = []
    for offset in range(size):
        headers = TraceContext(offset + 1, offset + 1, flags=0).headers if carried else ()
        records.append(FetchedRecord("classify.requests", 0, offset, 0, None, b'{"text":"a"}', headers))
    done = asyncio.get_running_loop().create_future()
    partition = Partition(TopicPartition("classify.requests", 0))
    piece = Slice(partition, admit(records, 0.0, 0), -1, None, None, None, done)
    answers = packed_records([Outgoing(b"{}", None, record.headers) for record in records])
    encoded = Encoded(piece, answers, [], {"ok": size, "expired": 0, "failed": 0}, Counter(), 0)
    return Batch([piece], 0.0, size), [encoded], answers


async def microseconds(tracer: Tracer | None, size: int, *, carried: bool, rounds: int) -> float:
    """Of one batch. Without a tracer only what is there anyway is done."""
    batch, encoded, answers = batch_of(size, carried=carried)
    spans = BatchSpans(tracer or NO_TRACER, "classify.requests", "headrace")
    producer = Accepting() if tracer is None else traced(Accepting, tracer, ("classify.results",), within=True)()  # type: ignore[arg-type]
    count = 20_000 if tracer is None or not tracer.on else 2_000
    least = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(count):
            if tracer is None:
                await producer.send_batch("classify.results", 0, answers)
                continue
            with received(spans, batch, 1.0).process() as span:
                answered(span, "v1", encoded)
                await producer.send_batch("classify.results", 0, answers)
        least = min(least, (time.process_time() - begun) / count)
    return 1e6 * least


def tracer_of(ratio: float) -> SendingTracer:
    """A tracer that sends nowhere."""
    return SendingTracer(Nowhere(), resource={"service.name": "benchmark"}, ratio=ratio, follows=True, most_links=32)


async def main(rounds: int) -> None:
    columns = [f"{size}, {said}" for size in SIZES for said in ("no trace", "a trace each")]
    print("| CPU us a batch | " + " | ".join(columns) + " |")
    for name, tracer in (
        ("off", NO_TRACER),
        ("on, ratio 0", tracer_of(0.0)),
        ("on, ratio 0.01", tracer_of(0.01)),
        ("on, ratio 1", tracer_of(1.0)),
    ):
        row = []
        for size in SIZES:
            for carried in (False, True):
                none = await microseconds(None, size, carried=carried, rounds=rounds)
                row.append(await microseconds(tracer, size, carried=carried, rounds=rounds) - none)
        print(f"| {name} | " + " | ".join(f"{found:.2f}" for found in row) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(main(parser.parse_args().rounds))
