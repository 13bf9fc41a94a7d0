import asyncio
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import Answer, Client, Published
from headrace.demo.stream import (
    Latencies,
    Ledger,
    Rate,
    Sent,
    all_answered,
    due_by,
    publish_steadily,
    read_answers,
    snapshot,
)
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace_schemas.records import ClassifyResult, Status
from tests.support.answer_log import AnswerWriter
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

CRC = 7


def answer(offset: int, label: str | None = "sport", *, crc: int = CRC, status: Status = Status.OK) -> Answer:
    result = ClassifyResult(offset=offset, after=offset - 1, crc=crc, status=status, version="v1", label=label)
    return Answer(partition=0, position=offset, timestamp_ms=0, key=None, headers=(), result=result)


def published(*offsets: int) -> list[Published]:
    return [Published(0, offset, CRC) for offset in offsets]


def test_every_text_that_is_answered_once_leaves_nothing_lost_and_nothing_repeated() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a"), Sent("b")], published(0, 1))
    ledger.take(answer(0), 1.0)
    ledger.take(answer(1, "money"), 1.0)
    assert (ledger.published, ledger.answered, ledger.waiting, ledger.repeated) == (2, 2, 0, 0)
    assert ledger.labels == {"sport": 1, "money": 1}


def test_a_text_without_an_answer_goes_on_waiting() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a"), Sent("b")], published(0, 1))
    ledger.take(answer(1), 1.0)
    assert (ledger.answered, ledger.waiting) == (1, 1)


def test_an_answer_before_the_acknowledgement_counts_with_the_time_of_its_arrival() -> None:
    ledger = Ledger()
    ledger.take(answer(0), 1.25)
    ledger.acknowledge([Sent("a", due=1.0)], published(0))
    assert (ledger.answered, ledger.waiting, ledger.repeated) == (1, 0, 0)
    assert ledger.latencies.quantile(0.5) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("times", [2, 3])
def test_an_answer_that_comes_again_is_a_repeat(times: int) -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a")], published(0))
    for _ in range(times):
        ledger.take(answer(0), 1.0)
    assert (ledger.answered, ledger.repeated) == (1, times - 1)
    ledger.acknowledge([Sent("b")], published(1))
    assert ledger.repeated == times - 1


def test_an_answer_that_comes_twice_before_the_acknowledgement_is_a_repeat() -> None:
    ledger = Ledger()
    ledger.take(answer(0), 1.0)
    ledger.take(answer(0), 1.0)
    ledger.acknowledge([Sent("a")], published(0))
    assert (ledger.answered, ledger.repeated) == (1, 1)


def test_an_answer_to_what_nobody_published_is_a_repeat() -> None:
    ledger = Ledger()
    ledger.take(answer(5), 1.0)
    ledger.acknowledge([Sent("a")], published(0))
    assert (ledger.answered, ledger.waiting, ledger.repeated) == (0, 1, 1)


def test_an_answer_to_another_text_is_none() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a")], published(0))
    ledger.take(answer(0, crc=CRC + 1), 1.0)
    assert (ledger.answered, ledger.waiting) == (0, 1)


def test_accuracy_is_of_the_texts_whose_label_is_known() -> None:
    ledger = Ledger()
    sent = [Sent("a", truth="sport"), Sent("b", truth="money"), Sent("c", truth="money"), Sent("d")]
    ledger.acknowledge(sent, published(0, 1, 2, 3))
    ledger.take(answer(0, "sport"), 1.0)
    ledger.take(answer(1, "sport"), 1.0)
    ledger.take(answer(3, "sport"), 1.0)
    assert (ledger.right, ledger.scored) == (1, 3), "what is lost is not right either"


def test_statuses_are_counted_and_what_has_no_label_has_none() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a", truth="sport"), Sent("b")], published(0, 1))
    ledger.take(answer(0, None, status=Status.FAILED), 1.0)
    ledger.take(answer(1), 1.0)
    assert ledger.statuses == {Status.FAILED: 1, Status.OK: 1}
    assert ledger.labels == {"sport": 1}
    assert ledger.right == 0


REQUESTS, RESULTS = "classify.requests", "classify.results"


@given(st.floats(0, 100, allow_nan=False), st.floats(0.5, 10_000))
def test_a_text_is_due_at_its_number_divided_by_the_rate(elapsed_s: float, rate: float) -> None:
    due = due_by(elapsed_s, rate)
    assert (due - 1) / rate <= elapsed_s * (1 + 1e-9)
    assert due / rate >= elapsed_s * (1 - 1e-9)


class Scene:
    """The twin with a client on it and a worker reduced to its answers."""

    def __init__(self, produce_s: float) -> None:
        self.clock = TurnedClock()
        self._produce_s = produce_s
        self.cluster = MemoryCluster(self.clock, faults=self)
        for name in (REQUESTS, RESULTS):
            self.cluster.create_topic(TopicSpec(name=name, partitions=2))
        self.writer = AnswerWriter(self.cluster, self.clock, REQUESTS, RESULTS, 2)
        self.client = Client(self.cluster, clock=self.clock)
        self.ledger = Ledger()

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(self._produce_s if name == "produce.before" else 0)

    def requests(self) -> list[bytes]:
        logs = (self.cluster.log(TopicPartition(REQUESTS, number)) for number in (0, 1))
        return [record.value for log in logs for record in log.records]

    async def stream(self, *, rate: float, seconds: float) -> None:
        texts = itertools.islice(itertools.cycle(["one", "two", "three"]), round(rate * seconds))
        async with self.client, self.client.reader("beginning") as reader:
            answering = self.writer.start()
            reading = asyncio.create_task(read_answers(reader, self.ledger, self.clock))
            try:
                await publish_steadily(self.client, self.ledger, texts, rate=rate, clock=self.clock)
                await all_answered(self.ledger, 30.0, self.clock)
            finally:
                for task in (answering, reading):
                    task.cancel()
                await asyncio.gather(answering, reading, return_exceptions=True)
                await self.cluster.close()


def streamed(
    *, rate: float, seconds: float, skipped: frozenset[int] = frozenset(), produce_s: float = 0.0
) -> tuple[Scene, float]:
    """The scene after a stream, and the time that it took on the turned clock. A publish takes ``produce_s``."""

    async def main() -> tuple[Scene, float]:
        scene = Scene(produce_s)
        scene.writer.skipped |= skipped
        await scene.stream(rate=rate, seconds=seconds)
        return scene, scene.clock.monotonic()

    return run_turned(main())


def test_the_stream_has_as_many_texts_as_its_rate_and_length_say() -> None:
    scene, took_s = streamed(rate=100, seconds=3)
    assert len(scene.requests()) == 300
    assert (scene.ledger.published, scene.ledger.answered, scene.ledger.waiting, scene.ledger.repeated) == (
        300,
        300,
        0,
        0,
    )
    assert 2.9 < took_s < 4


def test_a_fast_stream_sends_what_is_due_together() -> None:
    scene, took_s = streamed(rate=5000, seconds=1)
    assert len(scene.requests()) == 5000
    assert took_s < 2


def test_a_slow_publish_counts_in_the_latency_of_what_was_due_meanwhile() -> None:
    scene, _ = streamed(rate=100, seconds=2, produce_s=0.25)
    assert len(scene.requests()) == 200
    # Due just after a publish to two partitions began: half a second for that one and half a second for its own.
    assert scene.ledger.latencies.quantile(0.99) == pytest.approx(1.0, abs=0.05)


def test_a_request_that_was_passed_over_is_lost_after_the_limit() -> None:
    scene, took_s = streamed(rate=100, seconds=1, skipped=frozenset({10}))
    assert (scene.ledger.answered, scene.ledger.waiting) == (99, 1)
    assert took_s == pytest.approx(31, abs=0.5)


def test_slow_answers_are_waited_for_as_long_as_some_come() -> None:
    async def main() -> int:
        clock, ledger = TurnedClock(), Ledger()
        ledger.acknowledge([Sent("text")] * 5, [Published(0, offset, 0) for offset in range(5)])

        async def answer_slowly() -> None:
            for offset in range(5):
                await clock.sleep(25.0)
                result = ClassifyResult(offset=offset, after=offset - 1, crc=0, status=Status.OK, version="v1")
                ledger.take(Answer(0, offset, 0, None, (), result), clock.monotonic())

        answering = asyncio.create_task(answer_slowly())
        await all_answered(ledger, 30.0, clock)
        left = ledger.waiting
        answering.cancel()
        return left

    assert run_turned(main()) == 0


def test_a_snapshot_orders_labels_by_their_number() -> None:
    ledger = Ledger()
    ledger.labels.update({"b": 2, "a": 2, "c": 5})
    ledger.answered = 9
    now = snapshot(ledger, elapsed_s=1.0, seconds=2.0, rate=9.0)
    assert now.labels == (("c", 5), ("a", 2), ("b", 2))
    assert (now.p50, now.p99, now.lag) == (None, None, 0)


seconds = st.floats(0.0001, 100, allow_nan=False)


@given(st.lists(seconds, min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_one_of_nearest_rank_within_one_percent(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    assert latencies.quantile(share) == pytest.approx(true, rel=0.0101)


def test_without_latencies_there_is_no_quantile() -> None:
    assert Latencies().quantile(0.5) is None


@pytest.mark.parametrize(("given_s", "shown_s"), [(-1.0, 0.0001), (0.0, 0.0001), (5000.0, 102.0)])
def test_what_is_outside_of_the_buckets_counts_as_the_first_or_the_last(given_s: float, shown_s: float) -> None:
    latencies = Latencies()
    latencies.add(given_s)
    assert latencies.quantile(0.5) == pytest.approx(shown_s, rel=0.05)


def test_a_rate_is_of_the_last_seconds_alone() -> None:
    rate = Rate(window_s=2.0)
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(1.0, 100) == 100.0
    assert rate.at(2.0, 200) == 100.0
    assert rate.at(3.0, 200) == 50.0
    assert rate.at(4.0, 200) == 0.0


def test_a_rate_keeps_no_more_samples_than_its_window_needs() -> None:
    rate = Rate(window_s=2.0)
    for number in range(1000):
        assert rate.at(number * 0.25, number) == pytest.approx(4.0 if number else 0.0)
    assert len(rate._samples) <= 9
