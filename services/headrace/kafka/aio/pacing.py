"""Space out the metadata requests of aiokafka.

It asks again at once, thousands of times a second, while a topic is gone or a partition has no leader: its producer
and its fetching both wait for nothing but the end of such a request.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient

FIRST_S, LONGEST_S = 0.05, 1.0


class Pace:
    """How long to wait before metadata is asked for again, doubled for each time in a row that it was in vain."""

    def __init__(self) -> None:
        self.wait_s = 0.0

    def came(self, *, whole: bool) -> None:
        """Metadata came, ``whole`` when each topic asked for is there and each of its partitions has a leader."""
        self.wait_s = 0.0 if whole else min(LONGEST_S, max(FIRST_S, 2 * self.wait_s))


def pace(client: AIOKafkaClient) -> None:
    """Make ``client`` wait before it asks again for what it has just asked for in vain."""
    update: Any = client._metadata_update  # noqa: SLF001 - aiokafka offers no other way
    paced = Pace()

    async def update_in_time(cluster: Any, topics: Any) -> bool:
        await asyncio.sleep(paced.wait_s)
        updated = bool(await update(cluster, topics))
        paced.came(whole=updated and all(_led(cluster, topic) for topic in topics or ()))
        return updated

    client._metadata_update = update_in_time  # noqa: SLF001


def _led(cluster: Any, topic: str) -> bool:
    """Whether ``topic`` is there and each of its partitions has a leader."""
    partitions = cluster.partitions_for_topic(topic)
    return bool(partitions) and partitions == cluster.available_partitions_for_topic(topic)
