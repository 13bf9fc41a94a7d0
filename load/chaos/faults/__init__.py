"""Faults, by what they happen to."""

from load.chaos.fault import Fault
from load.chaos.faults import broker, log, network, registry, topics, trainer, worker

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *network.FAULTS,
    *broker.FAULTS,
    *topics.FAULTS,
    *log.FAULTS,
    *trainer.FAULTS,
    *registry.FAULTS,
)
