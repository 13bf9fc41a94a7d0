"""Faults, by what they happen to."""

from load.chaos.faults import artifacts, broker, client, log, trainer, worker
from load.chaos.world import Fault

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *broker.NETWORK_FAULTS,
    *broker.BROKER_FAULTS,
    *broker.TOPICS_FAULTS,
    *log.LOG_FAULTS,
    *log.TAIL_FAULTS,
    *trainer.FAULTS,
    *artifacts.STORE_FAULTS,
    *artifacts.REGISTRY_FAULTS,
    *client.FAULTS,
)
