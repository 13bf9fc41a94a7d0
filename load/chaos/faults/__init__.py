"""Faults, by what they happen to, in the order of the table."""

from load.chaos.faults import artifacts, broker, client, log, trainer, worker

ALL = tuple(fault for module in (worker, broker, log, trainer, artifacts, client) for fault in module.FAULTS)
