"""Faults, by what they happen to."""

from load.chaos.fault import Fault
from load.chaos.faults import broker, client, log, network, registry, store, tail, topics, trainer, worker

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *network.FAULTS,
    *broker.FAULTS,
    *topics.FAULTS,
    *log.FAULTS,
    *tail.FAULTS,
    *trainer.FAULTS,
    *store.FAULTS,
    *registry.FAULTS,
    *client.FAULTS,
)
