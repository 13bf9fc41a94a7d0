"""What aiokafka's fetcher asks for next, planned in little time for many partitions.

aiokafka looks at every partition before and after each fetch, with some twenty calls for each: of a thousand idle
partitions that takes longer than all else. Here the partitions are listed with their states and leaders once for an
assignment and the cluster's metadata, and a plan is one plain loop over the list.

A broker too looks at every partition of a fetch session for each fetch. So of a broker with many partitions those that
brought nothing for a while are asked for in a second session, over a connection of its own
(:class:`~headrace.kafka.aio.fetch_sessions.Quiet`), whose fetches mostly wait. A partition that changes over may be
named by both for a moment. Then the same records come twice, and the fetcher drops what is not at its position.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from aiokafka.protocol.fetch import FetchRequest

from headrace.kafka.aio.fetch_sessions import Quiet

Plan = tuple[list[tuple[Any, FetchRequest]], dict[Any, Any], float, bool, list[Any]]
"""As aiokafka has it: fetches by node, positions to reset, how long to wait, whether metadata are missing, and futures
of paused partitions."""

MANY = 32
"""Of a broker with fewer partitions all are asked for in one session."""
QUIET_S = 10.0
"""A partition is quiet when its position has stayed for so long."""


class Place:
    """A partition, its state, when its position was last seen to change, and the ``node`` that it is asked of: its
    leader, or the leader's :class:`Quiet`.
    """

    __slots__ = ("moved_s", "name", "node", "position", "state")

    def __init__(self, name: Any, state: Any, node: Any, now_s: float) -> None:
        self.name, self.state, self.node = name, state, node
        self.position, self.moved_s = state._position, now_s  # noqa: SLF001 - aiokafka offers no other way

    def look(self, now_s: float) -> None:
        position = self.state._position  # noqa: SLF001
        if position != self.position:
            self.position, self.moved_s = position, now_s


class Leader:
    """A broker, and the partitions that it leads by the node that they are asked of."""

    def __init__(self, node: Any, places: list[Place]) -> None:
        self._node, self._aside = node, Quiet(node)
        self._many = len(places) >= MANY
        self.asked: dict[Any, list[Place]] = {node: places, self._aside: []}

    def divide(self, now_s: float, in_flight: Any) -> None:
        """Let partitions change over, each to a node whose next fetch is to be planned."""
        if not self._many:
            return
        busy, quiet = self.asked.values()
        since_s = now_s - QUIET_S
        woken = [place for place in quiet if place.moved_s > since_s] if self._node not in in_flight else ()
        stilled = [place for place in busy if place.moved_s <= since_s] if self._aside not in in_flight else ()
        if not woken and not stilled:
            return
        for place in woken:
            place.node = self._node
        for place in stilled:
            place.node = self._aside
        both = busy + quiet
        self.asked = {node: [place for place in both if place.node == node] for node in self.asked}


class FetchPlanner:
    """Plans for ``fetcher`` in place of its own method, which it asks where anything is out of the ordinary."""

    def __init__(self, fetcher: Any, now_s: Callable[[], float] = time.monotonic) -> None:
        self._fetcher = fetcher
        self._now_s = now_s
        self._cluster = fetcher._client.cluster  # noqa: SLF001 - aiokafka offers no other way
        self._theirs = fetcher._get_actions_per_node  # noqa: SLF001
        self._of: tuple[Any, Any] = (None, None)
        self._places: dict[Any, Place] = {}
        self._leaders: list[Leader] | None = None

    def __call__(self, assignment: Any) -> Plan:
        fetcher = self._fetcher
        now_s = self._now_s()
        leaders = self._listed(assignment, now_s)
        if leaders is None or fetcher._preferred_read_replica:  # noqa: SLF001
            return self._theirs(assignment)  # type: ignore[no-any-return]
        in_flight = fetcher._in_flight  # noqa: SLF001
        backoffs = self._backoffs()
        fetches: list[tuple[Any, FetchRequest]] = []
        resumes: list[Any] = []
        for leader in leaders:
            leader.divide(now_s, in_flight)
            for node, places in leader.asked.items():
                if node in in_flight:
                    continue
                topics = self._fetchable(places, now_s, resumes)
                if topics is None:
                    return self._theirs(assignment)  # type: ignore[no-any-return]
                if topics and node not in backoffs:
                    fetches.append((node, self._fetch(topics)))
        wait_s = min(backoffs.values(), default=fetcher._fetcher_timeout)  # noqa: SLF001
        return fetches, {}, wait_s, False, resumes

    def _listed(self, assignment: Any, now_s: float) -> list[Leader] | None:
        """The leaders with their partitions; None where one has no leader."""
        of = assignment, self._cluster._partitions  # noqa: SLF001 - replaced as a whole when metadata come
        if self._of[0] is not of[0] or self._of[1] is not of[1]:
            before, self._places = self._places, {}
            led: defaultdict[Any, list[Place]] = defaultdict(list)
            for name in assignment.tps:
                node, state = self._cluster.leader_for_partition(name), assignment.state_value(name)
                place = self._places[name] = Place(name, state, node, now_s)
                if name in before and before[name].state is state:
                    place.moved_s = before[name].moved_s
                led[node].append(place)
            whole = not any(node is None or node < 0 for node in led)
            self._leaders = [Leader(node, places) for node, places in led.items()] if whole else None
            self._of = of
        return self._leaders

    def _backoffs(self) -> dict[Any, float]:
        """By node, how long its other partitions wait for what came and is not taken yet, in seconds."""
        found: dict[Any, float] = {}
        for name, fetched in self._fetcher._records.items():  # noqa: SLF001
            place = self._places.get(name)
            if place is not None and (backoff := fetched.calculate_backoff()):
                found[place.node] = max(backoff, found.get(place.node, 0.0))
        return found

    def _fetchable(
        self, places: list[Place], now_s: float, resumes: list[Any]
    ) -> dict[str, list[tuple[int, int, int]]] | None:
        """What to ask for by topic: partition, position and most bytes. None if a position is missing.

        The futures of paused partitions are appended to ``resumes``.
        """
        records, most = self._fetcher._records, self._fetcher._max_partition_fetch_bytes  # noqa: SLF001
        found: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for place in places:
            if place.name in records:
                continue
            place.look(now_s)
            if place.position is None:
                return None
            if place.state._paused:  # noqa: SLF001
                resumes.append(place.state._resume_fut)  # noqa: SLF001
            else:
                found[place.name[0]].append((place.name[1], place.position, most))
        return found

    def _fetch(self, topics: dict[str, list[tuple[int, int, int]]]) -> FetchRequest:
        fetcher = self._fetcher
        for asked in topics.values():
            # A broker fills its reply in this order.
            first = random.randrange(len(asked))  # noqa: S311 - no secret
            asked[:] = asked[first:] + asked[:first]
        return FetchRequest(
            fetcher._fetch_max_wait_ms,  # noqa: SLF001
            fetcher._fetch_min_bytes,  # noqa: SLF001
            fetcher._fetch_max_bytes,  # noqa: SLF001
            fetcher._isolation_level,  # noqa: SLF001
            list(topics.items()),
            rack_id=fetcher._client_rack or "",  # noqa: SLF001
        )
