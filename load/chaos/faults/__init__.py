"""Faults, by what they happen to."""

from load.chaos.fault import Fault
from load.chaos.faults import network, worker

ALL: tuple[Fault, ...] = (
    *worker.FAULTS,
    *network.FAULTS,
)
