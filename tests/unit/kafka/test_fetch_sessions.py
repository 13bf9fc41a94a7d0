"""Fetch sessions: against a broker that keeps them by KIP-227, what it is asked is always what the fetcher wants."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v4, FetchRequest_v7, FetchRequest_v11
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.aio.fetch_sessions import LAST_EPOCH, FetchSession, FetchSessions, Quiet

PARTITIONS = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5)),
    st.tuples(st.integers(0, 3), st.sampled_from([10, 20])),
)
OUTCOMES = ("kept", "kept", "kept", "lost", "lost unread", "evicted", "without sessions")


def fetch(wanted):
    topics = {}
    for (topic, number), (at, most) in wanted.items():
        topics.setdefault(topic, []).append((number, at, most))
    return FetchRequest(100, 1, 1000, 1, list(topics.items()), rack_id="r")


def named(built):
    return {(topic, number): (at, most) for topic, parts in built.topics for number, _, at, _, most in parts}


class Broker:
    """The broker's side of KIP-227."""

    NOT_FOUND, WRONG_EPOCH = 70, 71

    def __init__(self, keeps_sessions=True):
        self.sessions = {}
        self.made = 0
        self.keeps_sessions = keeps_sessions

    def fetch(self, built):
        """The reply, and the partitions that this fetch is of; None with an error."""
        asked, epoch, of = named(built), built.session_epoch, built.session_id
        if epoch == 0:
            assert not built.forgotten_topics_data
            self.sessions.pop(of, None)
            if not self.keeps_sessions:
                return SimpleNamespace(error_code=0, session_id=0, topics=[]), asked
            self.made += 1
            self.sessions[self.made] = [1, asked]
            return SimpleNamespace(error_code=0, session_id=self.made, topics=[]), asked
        if of not in self.sessions:
            return SimpleNamespace(error_code=self.NOT_FOUND, session_id=0, topics=[]), None
        session = self.sessions[of]
        if epoch != session[0]:
            return SimpleNamespace(error_code=self.WRONG_EPOCH, session_id=0, topics=[]), None
        session[0] += 1
        session[1] = session[1] | asked
        for topic, numbers in built.forgotten_topics_data:
            for number in numbers:
                assert (topic, number) not in asked
                del session[1][topic, number]
        return SimpleNamespace(error_code=0, session_id=of, topics=[]), session[1]


@given(st.lists(st.tuples(PARTITIONS, st.sampled_from(OUTCOMES)), max_size=30))
def test_the_broker_fetches_what_is_wanted_whatever_is_lost_in_between(steps):
    broker, session = Broker(), FetchSession()
    failed = False
    for wanted, outcome in steps:
        broker.keeps_sessions = outcome != "without sessions"
        built = session.ask(fetch(wanted)).build(FetchRequest_v11)
        if outcome == "lost unread":
            session.answered(None)
            continue
        reply, fetched = broker.fetch(built)
        if fetched is None:
            assert not failed  # an error is answered by naming all, so that two never follow each other
        else:
            assert fetched == wanted
        failed = fetched is None
        if outcome == "evicted":
            broker.sessions.clear()
        session.answered(None if outcome == "lost" else reply)


def test_a_fetch_of_a_session_names_what_moved_and_forgets_what_is_not_wanted():
    session = FetchSession()
    wanted = {("a", number): (0, 10) for number in range(1000)}
    session.ask(fetch(wanted))
    session.answered(SimpleNamespace(error_code=0, session_id=7))
    moved = wanted | {("a", 3): (5, 10)}
    del moved["a", 4]
    built = session.ask(fetch(moved)).build(FetchRequest_v11)
    assert (built.session_id, built.session_epoch) == (7, 1)
    assert named(built) == {("a", 3): (5, 10)}
    assert built.forgotten_topics_data == [("a", [4])]
    assert (built.max_wait_time, built.min_bytes, built.max_bytes, built.isolation_level) == (100, 1, 1000, 1)
    assert built.rack_id == "r"
    assert built.encode()


def test_a_broker_of_an_older_version_is_asked_for_all():
    session = FetchSession()
    wanted = {("a", 0): (0, 10), ("a", 1): (3, 10)}
    for _ in range(2):
        request = fetch(wanted)
        assert session.ask(request).build(FetchRequest_v4).encode() == request.build(FetchRequest_v4).encode()
        session.answered(SimpleNamespace(topics=[]))  # without an error's code and a session's id


def test_epochs_begin_again_behind_the_last_one():
    session = FetchSession()
    session.ask(fetch({}))
    session.answered(SimpleNamespace(error_code=0, session_id=7))
    session._epoch = LAST_EPOCH
    assert session.ask(fetch({})).build(FetchRequest_v7).session_epoch == LAST_EPOCH
    session.answered(SimpleNamespace(error_code=0, session_id=7))
    assert session.ask(fetch({})).build(FetchRequest_v7).session_epoch == 1


async def test_a_cancelled_fetch_ends_its_session_and_nodes_have_sessions_of_their_own():
    sent, hanging = [], asyncio.Event()

    class Client:
        bootstrap = "here"

        async def send(self, node, request, **options):
            sent.append((node, request.build(FetchRequest_v7) if isinstance(request, FetchRequest) else request))
            if len(sent) == 3:
                hanging.set()
                await asyncio.Event().wait()
            return SimpleNamespace(error_code=0, session_id=10 + node)

    client = FetchSessions(Client())
    assert client.bootstrap == "here"
    await client.send(1, "other")
    await client.send(1, fetch({("a", 0): (0, 10)}))
    fetching = asyncio.ensure_future(client.send(1, fetch({("a", 0): (0, 10)})))
    await hanging.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await client.send(2, fetch({("a", 1): (0, 10)}))
    await client.send(1, fetch({("a", 0): (0, 10)}))
    assert sent[0] == (1, "other")
    told = [(node, built.session_id, built.session_epoch) for node, built in sent[1:]]
    assert told == [(1, 0, 0), (1, 11, 1), (2, 0, 0), (1, 11, 0)]


async def test_what_is_asked_aside_has_a_session_and_a_connection_of_its_own():
    sent = []

    class Client:
        async def send(self, node, request, *, group="default"):
            built = request.build(FetchRequest_v7)
            sent.append((node, group, built.session_id, built.session_epoch))
            return SimpleNamespace(error_code=0, session_id=len(group))

    client = FetchSessions(Client())
    for _ in range(2):
        await client.send(1, fetch({("a", 0): (0, 10)}))
        await client.send(Quiet(1), fetch({("a", 1): (0, 10)}))
    assert sent == [(1, "default", 0, 0), (1, "quiet", 0, 0), (1, "default", 7, 1), (1, "quiet", 5, 1)]
