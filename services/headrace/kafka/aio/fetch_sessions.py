"""Fetch sessions: a fetch names only the partitions whose position changed, and its reply only those with news.

aiokafka names every partition in every fetch and reads each of them in every reply. With a thousand idle partitions
that is most of the time between a record's append and its arrival. Kafka keeps what a consumer fetches since KIP-227
(fetch version 7); a session is an id and an epoch that counts its fetches. This is the client's side of it, between
aiokafka's fetcher and its client. A broker that keeps no sessions answers with session 0, and is asked for all as
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.protocol.fetch import FetchRequest

SINCE_VERSION = 7
LAST_EPOCH = 2**31 - 1

Asked = Mapping[tuple[str, int], tuple[int, int]]
"""By topic and partition the position and the most bytes."""


class Quiet(NamedTuple):
    """Stands for ``node`` in a second session, with a connection of its own.

    A broker answers the requests of a connection one after the other, so a fetch that waits would hold up another.
    """

    node: Any


class FetchSessions:
    """The client of a fetcher, which sends one fetch at a time to a node, and to the :class:`Quiet` of a node."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._of_node: dict[Any, FetchSession] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: Any, request: Any, **options: Any) -> Any:
        if not isinstance(request, FetchRequest):
            return await self._client.send(node, request, **options)
        session = self._of_node.setdefault(node, FetchSession())
        if isinstance(node, Quiet):
            node, options = node.node, {"group": "quiet"}
        asking = session.ask(request)
        reply = None
        try:
            reply = await self._client.send(node, asking, **options)
        finally:
            session.answered(reply)
        return reply


class FetchSession:
    """The session with one broker. :meth:`ask` and :meth:`answered` take turns."""

    def __init__(self) -> None:
        self._id = 0
        self._epoch = 0
        """Of the next fetch. 0 names all partitions, ends the session of the id, and asks for a new one."""
        self._known: Asked = {}
        """What the broker was told in this session."""

    def ask(self, request: FetchRequest) -> SessionRequest:
        """What to send instead of ``request``."""
        wanted = {
            (topic, number): (at, most) for topic, partitions in request.topics for number, at, most in partitions
        }
        known = self._known if self._epoch else {}
        named = {name: asked for name, asked in wanted.items() if known.get(name) != asked}
        forgotten = known.keys() - wanted.keys()
        self._known = wanted
        return SessionRequest(request, self._id, self._epoch, named, forgotten)

    def answered(self, reply: Any) -> None:
        """Take a fetch's reply, or None when none came. Replies before version 7 have no session."""
        if reply is None:
            self._epoch = 0  # the broker may have gone on by one
        elif getattr(reply, "error_code", 0) or not getattr(reply, "session_id", 0):
            self._id = self._epoch = 0
        else:
            self._id, self._epoch = reply.session_id, self._epoch % LAST_EPOCH + 1


class SessionRequest(FetchRequest):  # type: ignore[misc]  # aiokafka has no types
    """``request`` as a fetch of a session; as it is where the broker's version has none."""

    def __init__(
        self, request: FetchRequest, session: int, epoch: int, named: Asked, forgotten: Iterable[tuple[str, int]]
    ) -> None:
        super().__init__(
            request._max_wait_ms,  # noqa: SLF001 - aiokafka offers no other way
            request._min_bytes,  # noqa: SLF001
            request._max_bytes,  # noqa: SLF001
            request._isolation_level,  # noqa: SLF001
            _by_topic((topic, (number, *asked)) for (topic, number), asked in named.items()),
            request._rack_id,  # noqa: SLF001
        )
        self._whole = request
        self._session, self._epoch = session, epoch
        self._forgotten = _by_topic(forgotten)

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class.API_VERSION < SINCE_VERSION:
            return self._whole.build(request_struct_class)
        built = super().build(request_struct_class)
        built.session_id, built.session_epoch = self._session, self._epoch
        built.forgotten_topics_data = self._forgotten
        return built


def _by_topic(parts: Iterable[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    topics: dict[str, list[Any]] = {}
    for topic, part in parts:
        topics.setdefault(topic, []).append(part)
    return list(topics.items())
