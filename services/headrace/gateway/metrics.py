"""What a gateway tells Prometheus, in calls, texts, seconds and bytes."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from headrace.process.metrics import Metrics
from headrace.process.tracing import Exemplar

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class GatewayMetrics(Metrics):
    """The metrics of one gateway in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "headrace_gateway")
        self._calls = self.counter("calls", "Calls, by endpoint and status.", "endpoint", "status")
        self._refused = self.counter("refused", "Calls that were refused or failed, by why.", "why")
        self._texts = self.counter("texts", "Texts that were asked about, by what became of them in time.", "status")
        self._idempotent = self.counter(
            "idempotent_calls",
            "Calls with an Idempotency-Key: published, repeated (answered again) or refused.",
            "outcome",
        )
        self._known: dict[tuple[str, int | str], Counter] = {}
        self._seconds = self.histogram("seconds", "How long calls that wait for answers took.", SECONDS)
        self._waiting = self.gauge("waiting_texts", "Texts that wait for their answers.")
        self._held = self.gauge("held_bytes", "Bodies that are held.")
        self._connections = self.gauge("connections", "Connections that are open.")
        self._owned = self.gauge("owned_partitions", "Results partitions that the group gave to this gateway.")
        self._read = self.gauge("read_partitions", "Results partitions that this gateway reads.")
        self._keys = self.gauge("idempotency_keys", "Idempotency-Keys of calls that are kept.")
        self._oldest_key = self.gauge(
            "oldest_api_key_made_timestamp_seconds", "When the oldest API key that was not revoked was made; NaN: none."
        )
        self._streams = self.gauge("streams", "Streams of answers that are open.")
        self._lag = self.gauge("lag_seconds", "In how many seconds a text that comes now is likely to be answered.")

    def call(self, endpoint: str, status: int) -> None:
        # To find a counter by its labels costs more than to count, and there are few.
        if (known := self._known.get((endpoint, status))) is None:
            known = self._known[endpoint, status] = self._calls.labels(endpoint, status)
        known.inc()

    def refused(self, why: str) -> None:
        self._refused.labels(why).inc()

    def texts(self, status: str, count: int) -> None:
        if (known := self._known.get(("", status))) is None:
            known = self._known["", status] = self._texts.labels(status)
        known.inc(count)

    def idempotent(self, outcome: str) -> None:
        self._idempotent.labels(outcome).inc()

    def waited(self, seconds: float, trace: Exemplar = None) -> None:
        """A call, of this ``trace`` if one is recorded, took ``seconds``."""
        self._seconds.observe(seconds, trace)

    def follow(
        self,
        *,
        waiting: Callable[[], int],
        held: Callable[[], int],
        connections: Callable[[], int],
        owned: Callable[[], int],
        read: Callable[[], int],
        lag: Callable[[], float],
        streams: Callable[[], int],
        keys: Callable[[], int],
        oldest_key: Callable[[], float],
    ) -> None:
        """Ask these whenever the metrics are read."""
        self._waiting.set_function(waiting)
        self._held.set_function(held)
        self._connections.set_function(connections)
        self._owned.set_function(owned)
        self._read.set_function(read)
        self._lag.set_function(lag)
        self._streams.set_function(streams)
        self._keys.set_function(keys)
        self._oldest_key.set_function(oldest_key)
