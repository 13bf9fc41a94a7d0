"""Faults, by what they happen to, in the order of the table."""

from load.chaos.faults import artifacts, broker, client, log, sight, trainer, worker

ALL = tuple(fault for module in (worker, broker, log, trainer, artifacts, client) for fault in module.FAULTS)
SEEN = tuple(sight.FAULTS)
"""Faults that are there for their alerts: `make alerts` runs them, the table of docs/chaos.md is without them."""
