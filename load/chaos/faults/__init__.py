"""Faults, by what they happen to."""

from load.chaos.fault import Fault
from load.chaos.faults import network, trainer, worker

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *network.FAULTS,
    *trainer.FAULTS,
)
