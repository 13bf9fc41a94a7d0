"""What a member learns from the answers of its coordinator, where no broker could be made to answer so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import errors as theirs
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from headrace.kafka.aio import consumer
from headrace.kafka.aio.consumer import FENCED, Membership
from headrace.kafka.settings import KafkaSettings

OK, UNKNOWN_MEMBER, ILLEGAL_GENERATION, REBALANCING = 0, 25, 22, 27
HEARTBEAT = HeartbeatRequest("g", 1, "me")
SYNC = SyncGroupRequest("g", 1, "me", None, [])
JOIN = JoinGroupRequest("g", 6000, 10000, "me", None, "consumer", [])
COMMIT = OffsetCommitRequest("g", 1, "me", -1, [])


class Coordinator:
    """aiokafka's, whose every request is answered by ``code`` after ``takes_s`` of the turned time."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock = clock
        self.code, self.takes_s = OK, 0.0
        self.group_id, self.member_id, self.generation = "g", "me", 1
        self._group_instance_id = "static"
        self.resets = 0

    async def _send_req(self, request):
        self.clock.now += self.takes_s
        return SimpleNamespace(error_code=self.code, topics=[("t", [(0, OK), (1, self.code)])])

    def reset_generation(self):
        self.resets += 1


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(consumer, "now_s", lambda: clock.now)
    return clock


@pytest.fixture
def coordinator(clock):
    return Coordinator(clock)


@pytest.fixture
def member(coordinator):
    member = Membership(SimpleNamespace(_coordinator=coordinator), KafkaSettings())
    ask(coordinator, SYNC)
    return member


def ask(coordinator, request, code=OK, takes_s=0.0):
    coordinator.code, coordinator.takes_s = code, takes_s
    return asyncio.run(coordinator._send_req(request))


@pytest.mark.parametrize("request_", [SYNC, HEARTBEAT])
def test_a_lease_counts_from_the_sending_and_not_from_the_answer(clock, coordinator, member, request_):
    clock.now += 1.0
    ask(coordinator, request_, takes_s=2.5)
    assert member.lease_left_s() == pytest.approx(6.0 - 2.5)


@pytest.mark.parametrize(
    ("request_", "code"), [(HEARTBEAT, REBALANCING), (COMMIT, OK), (JOIN, OK), (SYNC, REBALANCING), (HEARTBEAT, 15)]
)
def test_what_does_not_prove_that_the_partitions_are_still_its_own_renews_nothing(
    clock, coordinator, member, request_, code
):
    clock.now += 2.0
    ask(coordinator, request_, code)
    assert member.lease_left_s() == pytest.approx(4.0)


@pytest.mark.parametrize("request_", [HEARTBEAT, COMMIT])
@pytest.mark.parametrize("code", [UNKNOWN_MEMBER, ILLEGAL_GENERATION])
def test_a_member_that_the_group_does_not_know_has_no_lease(coordinator, member, request_, code):
    ask(coordinator, request_, code)
    assert member.lease_left_s() == 0


def test_the_static_id_is_given_up_at_the_second_takeover(clock, coordinator, member):
    ask(coordinator, HEARTBEAT, UNKNOWN_MEMBER)
    assert coordinator._group_instance_id == "static"
    ask(coordinator, SYNC)
    ask(coordinator, COMMIT, UNKNOWN_MEMBER)
    assert coordinator._group_instance_id is None


def test_one_takeover_that_two_answers_tell_of_counts_once(coordinator, member):
    ask(coordinator, COMMIT, UNKNOWN_MEMBER)
    ask(coordinator, HEARTBEAT, UNKNOWN_MEMBER)
    assert coordinator._group_instance_id == "static"


def test_a_session_that_ended_is_no_takeover(clock, coordinator, member):
    for _ in range(3):
        clock.now += 7.0
        ask(coordinator, HEARTBEAT, UNKNOWN_MEMBER)
        ask(coordinator, SYNC)
    assert coordinator._group_instance_id == "static"


@pytest.mark.parametrize("request_", [JOIN, SYNC])
def test_a_member_that_is_fenced_while_it_joins_joins_again_instead_of_ending(coordinator, member, request_):
    for _ in range(2):
        with pytest.raises(theirs.UnknownMemberIdError):
            ask(coordinator, request_, FENCED)
    assert coordinator.resets == 2
    assert coordinator._group_instance_id is None
