"""What the console says of now: from ends of logs, and from a sample that stays small however much comes in."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import SystemClock
from headrace.gateway.console import live
from headrace.gateway.console.live import Feed, LogSampler, Tick, percentile
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicSpec
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, ModelAlias, ModelVersion, Profile, Status
from tests.support.memory_kafka import MemoryCluster
from tests.support.waiting import within

NOW_MS = 1_764_000_000_000


def answer_of(label: str, version: str = "v1", score: float = 0.95) -> ClassifyResult:
    return ClassifyResult(offset=0, after=-1, crc=0, status=Status.OK, version=version, label=label, score=score)


class Log:
    """Requests and answers of two partitions on the twin, and a sampler of them."""

    def __init__(self, cluster: MemoryCluster) -> None:
        for name in ("requests", "results"):
            cluster.create_topic(TopicSpec(name=name, partitions=2))
        self.producer = cluster.producer()
        self.clock = SystemClock()
        self.sampler = LogSampler(cluster, "requests", "results", self.clock)

    async def ask(self, count: int, *, partition: int = 0, at_ms: int = NOW_MS) -> None:
        await self.producer.send_batch("requests", partition, [Outgoing(b"x", timestamp_ms=at_ms)] * count)

    async def answer(
        self, first: int, count: int, *, partition: int = 0, at_ms: int = NOW_MS, **fields: object
    ) -> None:
        given = {"status": Status.OK, "label": "card", "version": "v1", **fields}
        await self.producer.send_batch(
            "results",
            partition,
            [
                Outgoing(
                    encode_result(ClassifyResult(offset=offset, after=offset - 1, crc=0, **given)), timestamp_ms=at_ms
                )
                for offset in range(first, first + count)
            ],
        )


@pytest.fixture
async def log(memory_cluster: MemoryCluster):
    made = Log(memory_cluster)
    await made.sampler.start()
    yield made
    await made.sampler.stop()


async def test_latency_is_from_the_requests_time_stamp_to_the_answers(log: Log) -> None:
    await log.ask(3)
    await log.answer(0, 2, at_ms=NOW_MS + 40)
    await log.answer(2, 1, at_ms=NOW_MS + 900, label=None, version="v2")
    tick, answers = await log.sampler.look()
    assert (tick.p50_ms, tick.p99_ms, tick.sampled) == (40, 900, 3)
    assert tick.versions == {"v1": 2, "v2": 1}
    summary = live.summary_of([answers])
    assert summary.labels == [("card", 2), (live.NO_LABEL, 1)]


async def test_lag_is_what_has_no_answer_and_the_age_of_the_oldest(log: Log) -> None:
    now_ms = log.clock.now_ms()
    await log.ask(2, at_ms=now_ms - 50_000)
    await log.ask(3, partition=1, at_ms=now_ms - 20_000)
    await log.answer(0, 2)
    tick, _ = await log.sampler.look()
    assert tick.lag == 3
    assert 20 <= tick.lag_s < 50
    await log.answer(0, 3, partition=1)
    tick, _ = await log.sampler.look()
    assert (tick.lag, tick.lag_s) == (0, 0.0)


async def test_the_sample_stays_small_and_the_lag_right_in_a_flood(log: Log) -> None:
    await log.ask(6000)
    await log.answer(0, 5000)
    tick, answers = await log.sampler.look()
    assert len(answers) == live.SAMPLE
    assert tick.lag == 1000
    # The next look sees what came since, and nothing twice.
    await log.answer(5000, 10)
    tick, answers = await log.sampler.look()
    assert len(answers) == 10
    assert tick.lag == 990
    assert tick.answers_s > 0


async def test_a_log_with_records_of_others_and_without_its_old_requests_is_looked_at_all_the_same(
    log: Log, memory_cluster: MemoryCluster
) -> None:
    await log.ask(5)
    await memory_cluster.admin().delete_records({live.TopicPartition("requests", 0): 4})
    await log.producer.send_batch("results", 0, [Outgoing(b"rubbish"), Outgoing(None)])
    await log.answer(0, 5, at_ms=NOW_MS + 7, status=Status.EXPIRED, label=None)
    tick, answers = await log.sampler.look()
    assert [one.took_ms for one in answers] == [None, None, None, None, 7]
    assert live.summary_of([answers]).statuses == {"expired": 5}
    assert tick.lag == 0


def test_drift_is_that_of_the_followed_versions_sampled_answers_and_says_why_there_is_none() -> None:
    feed = Feed(lambda: None, no_moves, nothing_followed, QuickClock())
    assert "No version" in (feed._measured(None, []).why or "")
    version = ModelVersion(
        name="default", version="v1", uri="file:///x", sha256="0" * 64, size=1, labels=("card", "refund"),
        created_at_ms=0,
    )  # fmt: skip
    assert "no profile" in (feed._measured(version, []).why or "")
    version = msgspec.structs.replace(version, profile=Profile((0.5, 0.5), (0.0,) * 9 + (1.0,)))
    alike = [live.Answered(None, answer_of(label)) for label in ("card", "refund") for _ in range(100)]
    of_another = [live.Answered(None, answer_of("card", "v0")) for _ in range(1000)]
    shown = feed._measured(version, alike + of_another)
    assert (shown.answers, shown.needed, shown.labels) == (200, 450, None)
    shown = feed._measured(version, alike + alike)
    assert shown.answers == 600
    assert (round(shown.labels, 6), round(shown.confidence, 6)) == (0, 0)
    shown = feed._measured(version, [live.Answered(None, answer_of("card", score=0.55))] * 600)
    assert shown.labels > 0.1
    assert shown.confidence > 0.25
    broken = msgspec.structs.replace(version, version="v2", profile=Profile((1.0,), (1.0,)))
    assert "no profile" in (feed._measured(broken, alike).why or "")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1))
def test_so_many_values_are_within_a_percentile_and_no_fewer_would_do(values: list[float], fraction: float) -> None:
    found = percentile(values, fraction)
    wanted = math.ceil(fraction * len(values))
    assert found in values
    assert sum(value <= found for value in values) >= wanted
    assert sum(value < found for value in values) < wanted


def test_of_many_labels_the_most_frequent_are_shown_and_the_others_counted() -> None:
    answers = [live.Answered(None, answer_of(f"label {place}")) for place in range(live.MOST_LABELS + 5) for _ in "ab"]
    labels = live.summary_of([answers]).labels
    assert len(labels) == live.MOST_LABELS + 1
    assert labels[-1] == (live.OTHERS, 10)


class Steps:
    """A sampler that says what it is told to, a look at a time."""

    def __init__(self) -> None:
        self.made = 0
        self.looks = 0
        self.fails: list[Exception] = []

    def __call__(self) -> Steps:
        self.made += 1
        return self

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def look(self) -> tuple[Tick, list[live.Answered]]:
        if self.fails:
            raise self.fails.pop()
        self.looks += 1
        return Tick(at_ms=self.looks, lag=self.looks), []


class QuickClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def said(event: bytes) -> dict:
    return msgspec.json.decode(event.partition(b"data: ")[2])


async def nothing_followed() -> ModelVersion | None:
    return None


async def no_moves() -> list[ModelAlias] | None:
    return None


async def test_many_viewers_share_one_reader_and_a_slow_one_gets_the_newest() -> None:
    steps = Steps()
    feed = Feed(steps, no_moves, nothing_followed, QuickClock())
    viewers = [feed.events() for _ in range(20)]
    async with within(10, "the first event of each"):
        assert all([said(await anext(one))["history"] is not None for one in viewers])
        slow, quick = viewers[0], viewers[1]
        while steps.looks < 5 * live.MOST_WAITING:
            await anext(quick)
        assert steps.made == 1
        first = said(await anext(slow))["tick"]["at_ms"]
        assert first > steps.looks - live.MOST_WAITING - 2
    await feed.close()
    assert feed.full


async def test_a_broker_that_is_away_is_said_and_asked_again_by_a_new_sampler() -> None:
    steps = Steps()
    steps.fails = [BrokerUnavailableError("no broker answers")]
    feed = Feed(steps, no_moves, nothing_followed, QuickClock())
    viewer = feed.events()
    async with within(10, "events"):
        await anext(viewer)
        assert said(await anext(viewer))["tick"]["away"] == "no broker answers"
        assert said(await anext(viewer))["tick"]["lag"] == 1
    assert steps.made == 2
    await feed.close()


async def test_no_more_watch_than_may_and_nothing_is_read_for_nobody() -> None:
    steps = Steps()
    feed = Feed(steps, no_moves, nothing_followed, QuickClock())
    viewers = [feed.events() for _ in range(live.MOST_VIEWERS)]
    for one in viewers:
        await anext(one)
    assert feed.full
    await viewers[0].aclose()
    assert not feed.full
    for one in viewers:
        await one.aclose()
    feed._watched_s -= live.LINGER_S
    async with within(10, "the reader's end"):
        await feed._running
    await feed.close()
