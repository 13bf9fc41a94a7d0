"""What is known of a broker by asking it every second, on a turned clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headrace.kafka.interface import BrokerUnavailableError, NotAuthorizedError, UnknownTopicError
from headrace.kafka.reach import Reach
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned


class Broker:
    """Answers what it is told to: with missing topics, an error, or never."""

    def __init__(self) -> None:
        self.answer: list[str] | Exception | None = []

    async def ask(self) -> list[str]:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or []


Play = Callable[[Reach, Broker, TurnedClock], Coroutine[Any, Any, None]]


def watched(play: Play) -> Callable[[pytest.LogCaptureFixture], None]:
    def test(caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            clock, broker = TurnedClock(), Broker()
            reach = Reach(MemoryCluster(clock), clock=clock, away_after=10.0)
            watching = asyncio.create_task(reach.watch(broker.ask))
            await clock.sleep(5)
            assert (reach.connected, reach.away, reach.unready) == (True, None, None)
            reach.records = caplog.records  # type: ignore[attr-defined]
            await play(reach, broker, clock)
            watching.cancel()

        caplog.set_level("INFO", "headrace")
        run_turned(main())

    test.__name__ = play.__name__
    return test


def said(reach: Reach) -> list[tuple[str, str]]:
    return [(record.event, record.levelname) for record in reach.records]  # type: ignore[attr-defined]


@watched
async def test_a_broker_that_is_away_is_said_seldom_and_its_return_with_how_long_it_was_away(reach, broker, clock):
    broker.answer = BrokerUnavailableError("connection refused")
    await clock.sleep(4)
    assert not reach.connected
    assert reach.unready is None, "not before the documented time"
    await clock.sleep(596)
    assert reach.unready.startswith("Kafka at memory has not answered for 60")
    assert reach.unready.endswith(" (connection refused); lag unknown")
    lines = said(reach)
    assert set(lines) == {("broker.away", "WARNING")}
    assert len(lines) < 10
    broker.answer = []
    await clock.sleep(2)
    assert (reach.connected, reach.unready) == (True, None)
    assert said(reach)[len(lines) :] == [("broker.back", "INFO")]
    assert reach.records[-1].fields["away_s"] in range(595, 606)


@watched
async def test_a_broker_that_holds_its_connections_and_says_nothing_is_away_too(reach, broker, clock):
    broker.answer = None
    await clock.sleep(4)
    assert not reach.connected
    await clock.sleep(20)
    assert "has not answered" in reach.unready


@watched
async def test_a_moment_without_an_answer_is_not_worth_a_word(reach, broker, clock):
    broker.answer = BrokerUnavailableError("no leader")
    await clock.sleep(1.5)
    broker.answer = []
    await clock.sleep(10)
    assert reach.connected
    assert said(reach) == []


@watched
async def test_a_refusal_is_an_answer(reach, broker, clock):
    broker.answer = NotAuthorizedError("not for you")
    await clock.sleep(60)
    assert (reach.connected, reach.unready, said(reach)) == (True, None, [])


@watched
async def test_topics_that_are_gone_are_named_and_their_return_is_said(reach, broker, clock):
    broker.answer = ["labels"]
    await clock.sleep(30)
    assert reach.connected
    assert reach.unready.startswith("missing topics: labels. `headrace topics apply` creates them")
    with pytest.raises(UnknownTopicError, match="labels"):
        reach.check_topics()
    broker.answer = []
    await reach.whole(asyncio.Event())
    reach.check_topics()
    assert reach.unready is None
    names = [name for name, _ in said(reach)]
    assert names[0] == "topics.missing"
    assert names[-1] == "topics.back"
    assert len(names) < 10


@watched
async def test_a_topic_that_is_missing_once_is_not_gone(reach, broker, clock):
    broker.answer = ["labels"]
    await clock.sleep(1)
    broker.answer = []
    await clock.sleep(5)
    assert (reach.unready, said(reach)) == (None, [])
