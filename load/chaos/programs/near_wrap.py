"""`headrace` whose idempotent producers begin near the end of their sequence numbers, and are renewed that much sooner.

The way from there to the end is as far as a large batch behind the renewal; past it Kafka refuses what comes. Each
connection of a producer is an event, `producer.connects`.

$ python -m load.chaos.programs.near_wrap worker --model FILE
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiokafka.producer.transaction_manager import TransactionManager

from headrace.cli import main
from headrace.kafka.aio import producer
from headrace.process.logs import event

RENEWED_AFTER = 300
BEGIN = 2**31 - 1 - RENEWED_AFTER - 1200

if __name__ == "__main__":
    make = TransactionManager.__init__

    def near_the_end(self: TransactionManager, *given: Any) -> None:
        """Where it would be after two thousand million records."""
        make(self, *given)
        self._sequence_numbers = defaultdict(lambda: BEGIN)
        event("producer.connects", sequence=BEGIN)

    TransactionManager.__init__ = near_the_end
    producer.SEQUENCE_LIMIT = RENEWED_AFTER
    main()
