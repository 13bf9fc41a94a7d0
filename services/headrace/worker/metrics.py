"""The metrics of a worker. A method is called once for a batch, a second or an event, never once for a record.

The registry is passed in, so that two workers in one process (a test) don't mix. Units are seconds and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from headrace.core.clock import believable
from headrace.core.drift import Drift
from headrace.model.compiling import kernel
from headrace.process.metrics import Metrics
from headrace.process.tracing import Exemplar

# From a batch of one on a warm cache to a produce that times out.
STAGE_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
# From a worker that keeps up to one that comes back after a day.
KAFKA_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 3600, 86400)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class AgeHistogram(Collector):
    """A histogram of the age of records, a chunk at once: one compiled call, no lock, no label look-up."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        # The kernel is loaded here, where nobody waits for it.
        self.observe(np.empty(0, np.int64), 0)
        registry.register(self)

    def observe(self, stamps: NDArray[np.int64], now_ms: int) -> int:
        """Count the age at ``now_ms`` of each believable one of ``stamps``, and return how many they are.

        An age equal to a bound belongs below it. One below zero counts as zero.
        """
        earliest, latest = believable(now_ms)
        total, believed = _count(stamps, now_ms, earliest, latest, self._bounds, self._counts)
        self._sum += total
        return int(believed)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the cumulative buckets."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds.tolist()), "+Inf"), self._counts.tolist(), strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


@kernel
def _count(stamps, now_ms, earliest, latest, bounds, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how many ages in seconds belong below each bound and to none; returns their sum and number."""
    total, believed = 0.0, 0
    for stamp in stamps:
        if earliest <= stamp <= latest:
            age = max(now_ms - stamp, 0) / 1000
            place = 0
            while place < len(bounds) and age > bounds[place]:
                place += 1
            counts[place] += 1
            total += age
            believed += 1
    return total, believed


class DriftGauge(Collector):
    """The drift, measured when the metrics are read. It has no sample while the drift is not known."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.measure: Callable[[], Drift | None] = lambda: None
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one gauge of two samples, or of none."""
        gauge = GaugeMetricFamily(
            "headrace_drift_psi",
            "Population stability index of the last answers against those to the version's test rows.",
            labels=("of",),
        )
        drift = self.measure()
        if drift is not None:
            gauge.add_metric(("labels",), drift.labels)
            gauge.add_metric(("confidence",), drift.confidence)
        yield gauge


class Children(dict[str, Any]):
    """The children of a metric with one label, by its value."""

    def __init__(self, parent: Counter | Histogram) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, value: str) -> Any:
        self[value] = child = self._parent.labels(value)
        return child


class WorkerMetrics(Metrics):
    """The metrics of one worker in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._fetched = self.counter("requests_fetched", "Requests fetched.")
        self._in_kafka = AgeHistogram(
            "headrace_in_kafka_seconds", "From a request's timestamp to its fetch.", KAFKA_BUCKETS, registry
        )
        self._odd_timestamps = self.counter(
            "odd_timestamps",
            "Requests whose timestamp is missing or absurd, so that deadlines count from the fetch.",
            "kind",
        )
        self._batch_size = self.histogram("batch_size", "Requests a batch.", SIZE_BUCKETS)
        self._batches = self.counter("batches", "Batches by why they took no more.", "closed")
        self._texts = self.counter("texts", "Texts that reached the model.")
        self._truncated = self.counter(
            "texts_cut", "Texts longer than the version reads: only their beginning counted."
        )
        self._stage = self.histogram("stage_seconds", "Seconds that a batch spends in a stage.", STAGE_BUCKETS, "stage")
        self._request_seconds = self.counter(
            "request_seconds", "Seconds spent in a stage, added up over the requests, not over the batches.", "stage"
        )
        self._answers = self.counter("answers", "Answers acknowledged, by status.", "status")
        self._abstained = self.counter(
            "answers_abstained", "Answers that are ok without a label: the score was too low."
        )
        self._dead_letters = self.counter("dead_letters", "Requests dead-lettered, by error.", "error")
        self._queue = self.gauge("queue_depth", "Requests held in front of a stage.", "stage")
        self._lag = self.gauge("lag_records", "Requests behind the last answer, absent while unknown.", "partition")
        self._lag_seconds = self.gauge(
            "lag_seconds", "Age of the oldest request that waits here, also in a batch.", "partition"
        )
        self._loop_lag = self.histogram("loop_lag_seconds", "How late the event loop wakes a sleeper.", STAGE_BUCKETS)
        self._model = self.gauge("model_info", "1 for the version that answers.", "version")
        self._threshold = self.gauge("threshold", "An answer with a lower score has no label; 0 gives each its label.")
        self._model_load_failures = self.counter(
            "model_load_failures", "Versions that could not be loaded, by each try."
        )
        self._drift = DriftGauge(registry)
        self._lost = self.counter("requests_lost", "Requests deleted by retention before they were answered.")
        self._partitions = self.gauge("partitions", "Partitions assigned to this worker.")
        self._unanswerable = self.gauge(
            "partitions_unanswerable",
            "Partitions of this worker that the results or the dead-letters topic lacks: nobody answers them.",
        )
        self._rebalances = self.counter("rebalances", "Assignments received from the group.")
        self._leases_lost = self.counter(
            "leases_lost", "Times that the group was not heard for so long that all partitions were given up."
        )
        self._refetches = self.counter("refetches", "Chunks that did not begin as expected and were fetched again.")
        self._breaker = self.gauge("breaker_open", "1 while the model fails on its own canary texts.")

        # prometheus-client takes a lock and checks the names at each look-up of a label.
        self._of_stage = Children(self._stage)
        self._spent_in = Children(self._request_seconds)
        self._answers_with = Children(self._answers)

    def fetched(self, stamps: NDArray[np.int64], now_ms: int) -> int:
        """A chunk of one partition with these timestamps was fetched at ``now_ms``, all in milliseconds since the Unix
        epoch. A timestamp in the future counts as no time in Kafka; an unbelievable one is left out.

        Returns how many are believable.
        """
        self._fetched.inc(len(stamps))
        return self._in_kafka.observe(stamps, now_ms)

    def odd_timestamps(self, kinds: Mapping[str, int]) -> None:
        """How many requests had a timestamp that is not believable, by its kind."""
        for kind, count in kinds.items():
            self._odd_timestamps.labels(kind).inc(count)

    def unanswerable(self, count: int) -> None:
        """How many assigned partitions can't be answered until somebody mends a topic."""
        self._unanswerable.set(count)

    def refetched(self) -> None:
        self._refetches.inc()

    def queue(self, stage: str, depth: int) -> None:
        """``depth`` requests wait for ``stage``."""
        self._queue.labels(stage).set(depth)

    def batch(self, size: int, closed: str) -> None:
        """A batch of ``size`` requests was closed, and why."""
        self._batch_size.observe(size)
        self._batches.labels(str(closed)).inc()

    def computed(
        self,
        texts: int,
        decode_s: float,
        infer_s: float,
        encode_s: float,
        *,
        truncated: int = 0,
        trace: Exemplar = None,
    ) -> None:
        """A batch was computed: ``texts`` reached the model, which read ``truncated`` of them only in part."""
        self._texts.inc(texts)
        if truncated:
            self._truncated.inc(truncated)
        self.stage("decode", decode_s, trace)
        self.stage("infer", infer_s, trace)
        self.stage("encode", encode_s, trace)

    def stage(self, stage: str, seconds: float, trace: Exemplar = None) -> None:
        """A batch, of this ``trace`` if one is recorded, spent ``seconds`` in ``stage``."""
        self._of_stage[stage].observe(seconds, trace)

    def spent(self, stage: str, seconds: float) -> None:
        """Requests spent ``seconds`` together in ``stage``: gathering, model or publishing."""
        # The difference of two large sums of floats may be below zero by their rounding, and no counter takes that.
        self._spent_in[stage].inc(max(0.0, seconds))

    def published(self, statuses: Mapping[str, int], seconds: float, *, abstained: int, trace: Exemplar = None) -> None:
        """Answers were acknowledged after ``seconds``, by status; ``abstained`` of them have no label."""
        self._abstained.inc(abstained)
        self.stage("publish", seconds, trace)
        for status, count in statuses.items():
            self._answers_with[str(status)].inc(count)

    def dead_lettered(self, errors: Mapping[str, int], trace: Exemplar = None) -> None:
        """Dead letters were acknowledged, by error code."""
        for error, count in errors.items():
            self._dead_letters.labels(error).inc(count, trace)

    def lag(self, partition: int, records: int, seconds: float) -> None:
        """How far behind the worker is in ``partition``."""
        label = str(partition)
        self._lag.labels(label).set(records)
        self._lag_seconds.labels(label).set(seconds)

    def lag_unknown(self, partition: int | None = None) -> None:
        """The lag of ``partition``, or of all, is not known: its old value is removed."""
        if partition is None:
            self._lag.clear()
            self._lag_seconds.clear()
            return
        for gauge in (self._lag, self._lag_seconds):
            with suppress(KeyError):
                gauge.remove(str(partition))

    def loop_lag(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    def model(self, version: str) -> None:
        """``version`` answers from now on."""
        self._model.clear()
        self._model.labels(version).set(1)

    def threshold(self, score: float | None) -> None:
        """Answers below ``score`` have no label from now on; None gives every answer its label."""
        self._threshold.set(score or 0.0)

    def model_load_failed(self) -> None:
        self._model_load_failures.inc()

    def drift(self, measure: Callable[[], Drift | None]) -> None:
        """``measure`` tells the drift whenever the metrics are read."""
        self._drift.measure = measure

    def lost(self, requests: int) -> None:
        self._lost.inc(requests)

    def assigned(self, partitions: int) -> None:
        """The group gave this worker so many partitions. The lag of others is removed: their owners report it."""
        self._rebalances.inc()
        self._partitions.set(partitions)
        self.lag_unknown()

    def given_up(self) -> None:
        """No partition is assigned to this worker any more."""
        self._partitions.set(0)
        self._unanswerable.set(0)
        self.lag_unknown()

    def lease_lost(self) -> None:
        """The lease ended, so all partitions were given up."""
        self._leases_lost.inc()
        self.given_up()

    def breaker(self, *, is_open: bool) -> None:
        self._breaker.set(is_open)
