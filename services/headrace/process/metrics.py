"""What the services' metrics have in common: names with one prefix, a registry that is passed in, and Kafka's gauge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Makes metrics of ``registry`` whose names begin with ``prefix``.

    The registry is passed in, so that two services in one process (a test) don't mix.
    """

    def __init__(self, registry: CollectorRegistry, prefix: str = "headrace") -> None:
        self.registry = registry
        self._prefix = prefix
        self.broker = BrokerGauge(registry)

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"{self._prefix}_{name}", documentation, labels, registry=self.registry)

    def gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", documentation, labels, registry=self.registry)

    def histogram(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"{self._prefix}_{name}", documentation, labels, buckets=buckets, registry=self.registry)


class BrokerGauge:
    """Whether Kafka answers, as it is when somebody asks for it: of a worker, a trainer, a machine that helps one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(
            "headrace_broker_connected",
            "1 while Kafka answers, 0 when it has not for three seconds.",
            registry=registry,
        )

    def follow(self, connected: Callable[[], bool]) -> None:
        self._gauge.set_function(connected)
