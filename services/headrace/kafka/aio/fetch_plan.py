"""What aiokafka's fetcher asks for next, planned in little time for many partitions.

aiokafka looks at every partition before and after each fetch, with some twenty calls for each: of a thousand idle
partitions that takes longer than all else. Here the partitions are listed with their states and leaders once for an
assignment and the cluster's metadata, and a plan is one plain loop over the list.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from aiokafka.protocol.fetch import FetchRequest

Plan = tuple[list[tuple[Any, FetchRequest]], dict[Any, Any], float, bool, list[Any]]
"""As aiokafka has it: fetches by node, positions to reset, how long to wait, whether metadata are missing, and futures
of paused partitions."""


class FetchPlanner:
    """Plans for ``fetcher`` in place of its own method, which it asks where anything is out of the ordinary."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self._cluster = fetcher._client.cluster  # noqa: SLF001 - aiokafka offers no other way
        self._theirs = fetcher._get_actions_per_node  # noqa: SLF001
        self._of: tuple[Any, Any] = (None, None)
        self._places: list[tuple[Any, Any, Any]] | None = None

    def __call__(self, assignment: Any) -> Plan:
        fetcher = self._fetcher
        places = self._listed(assignment)
        if places is None or fetcher._preferred_read_replica:  # noqa: SLF001
            return self._theirs(assignment)  # type: ignore[no-any-return]
        records, in_flight = fetcher._records, fetcher._in_flight  # noqa: SLF001
        most = fetcher._max_partition_fetch_bytes  # noqa: SLF001
        fetchable: defaultdict[Any, defaultdict[str, list[tuple[int, int, int]]]]
        fetchable = defaultdict(lambda: defaultdict(list))
        backoffs: defaultdict[Any, list[float]] = defaultdict(list)
        resumes = []
        for name, state, node in places:
            if name in records:
                # What came is not taken yet. Others of the node wait for it, but not for ever.
                if backoff := records[name].calculate_backoff():
                    backoffs[node].append(backoff)
            elif node in in_flight:
                continue
            elif (position := state._position) is None:  # noqa: SLF001
                return self._theirs(assignment)  # type: ignore[no-any-return]
            elif state._paused:  # noqa: SLF001
                resumes.append(state._resume_fut)  # noqa: SLF001
            else:
                fetchable[node][name[0]].append((name[1], position, most))
        fetches = [(node, self._fetch(topics)) for node, topics in fetchable.items() if node not in backoffs]
        wait_s = min(map(max, backoffs.values())) if backoffs else fetcher._fetcher_timeout  # noqa: SLF001
        return fetches, {}, wait_s, False, resumes

    def _listed(self, assignment: Any) -> list[tuple[Any, Any, Any]] | None:
        """Each partition with its state and leader; None where one has no leader."""
        of = assignment, self._cluster._partitions  # noqa: SLF001 - replaced as a whole when metadata come
        if self._of[0] is not of[0] or self._of[1] is not of[1]:
            leaders = {name: self._cluster.leader_for_partition(name) for name in assignment.tps}
            whole = not any(leader is None or leader < 0 for leader in leaders.values())
            self._places = [(n, assignment.state_value(n), at) for n, at in leaders.items()] if whole else None
            self._of = of
        return self._places

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
