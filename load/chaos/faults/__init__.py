"""Faults, by what they happen to."""

from load.chaos.fault import Fault
from load.chaos.faults import artifacts, broker, client, log, network, trainer, worker

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *network.FAULTS,
    *broker.BROKER_FAULTS,
    *broker.TOPICS_FAULTS,
    *log.LOG_FAULTS,
    *log.TAIL_FAULTS,
    *trainer.FAULTS,
    *artifacts.STORE_FAULTS,
    *artifacts.REGISTRY_FAULTS,
    *client.FAULTS,
)
