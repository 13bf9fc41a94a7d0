"""What every process that reads Kafka tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge


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
