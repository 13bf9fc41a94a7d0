"""A member's standing in its group, by what passes between aiokafka and the group's coordinator.

aiokafka revokes nothing while it can't reach the coordinator, takes a heartbeat that is answered "rebalance in
progress" for a good one, and remembers when an answer came instead of when its request went. And where two processes
have one static membership id it lets them throw each other out for ever. So all requests to the coordinator are
watched here, by the one door that aiokafka has for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as theirs
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

from headrace.core.lease import lease_of
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.static_membership import Takeovers, static_id_given_up

log = logging.getLogger(__name__)

OK = theirs.NoError.errno
UNKNOWN_MEMBER = theirs.UnknownMemberIdError.errno
GONE = frozenset({UNKNOWN_MEMBER, theirs.IllegalGenerationError.errno})
"""The group goes on without this member, or without this generation."""
FENCED = 82
"""FENCED_INSTANCE_ID, another process joined under the static id: aiokafka has no error of this number."""


def now_s() -> float:
    """Seconds that go on while the machine sleeps, which Python's monotonic clock does not on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Membership:
    """Watches the group of ``consumer``, which is started and has subscribed to nothing yet."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: KafkaSettings) -> None:
        self._coordinator: Any = consumer._coordinator  # noqa: SLF001 - aiokafka offers no other way
        self._send = self._coordinator._send_req  # noqa: SLF001
        self._coordinator._send_req = self._watched  # noqa: SLF001
        self._lease = lease_of(
            session_s=settings.session_timeout_ms / 1000, rebalance_s=settings.rebalance_timeout_ms / 1000
        )
        self._takeovers = Takeovers()

    def lease_left_s(self) -> float:
        return self._lease.left_s(now_s())

    def rejoin(self) -> None:
        self._coordinator.request_rejoin()

    async def leave(self, limit_s: float) -> None:
        """Leave the group in the name of a static member, which aiokafka never does; for others it does so itself."""
        member, group = self._static_id, self._coordinator.group_id
        if member is None or self._coordinator.generation <= 0:
            return
        try:
            async with asyncio.timeout(limit_s):
                await self._send(LeaveGroupRequest(group, self._coordinator.member_id))
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the end must come
            log.info("Member %s could not leave group %s (%r); its session will end", member, group, error)

    @property
    def _static_id(self) -> str | None:
        static_id: str | None = self._coordinator._group_instance_id  # noqa: SLF001
        return static_id

    async def _watched(self, request: Any) -> Any:
        """Send a request and learn from its answer."""
        of = self._coordinator.member_id, self._coordinator.generation
        sent_s = now_s()
        response = await self._send(request)
        match request:
            case HeartbeatRequest():
                self._heard(response.error_code, of, sent_s)
            case OffsetCommitRequest():
                for code in {code for _, partitions in response.topics for _, code in partitions} & GONE:
                    self._heard(code, of, sent_s)
            case SyncGroupRequest() if response.error_code == OK:
                self._lease = self._lease.begun(of, sent_s)
            case SyncGroupRequest() | JoinGroupRequest() if response.error_code == FENCED:
                # To aiokafka this is an unknown error and the consumer's end. As one that it knows it joins again.
                self._taken_over()
                self._coordinator.reset_generation()
                raise theirs.UnknownMemberIdError(self._coordinator.group_id)
        return response

    def _heard(self, code: int, of: tuple[str, int], sent_s: float) -> None:
        """What the group has to say to a member of an assignment."""
        if code == OK:
            self._lease = self._lease.renewed(of, sent_s)
        elif code in GONE:
            # Within the lease that is no session's end: another process joined under this one's static id. aiokafka
            # joins again under it, which throws the other one out.
            if code == UNKNOWN_MEMBER and self.lease_left_s() > 0:
                self._taken_over()
            self._lease = self._lease.ended()

    def _taken_over(self) -> None:
        if self._static_id is None:
            return
        self._takeovers = self._takeovers.another(now_s())
        if self._takeovers.alternate:
            static_id_given_up(self._coordinator.group_id, self._static_id)
            self._coordinator._group_instance_id = None  # noqa: SLF001
