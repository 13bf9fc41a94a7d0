"""What a worker does with requests that are late, broken, shaped differently, or too much for the model."""

from __future__ import annotations

import asyncio
import itertools
import json

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from headrace.kafka.interface import BrokerUnavailableError, NotAuthorizedError, TopicPartition
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace.worker.watchdog import StalledError
from headrace_schemas.dead_letters import dead_letter_from_record
from headrace_schemas.headers import CONTENT_TYPE, MSGPACK, TIMEOUT_MS, TRACEPARENT
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Profile, Score, Status
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.models import LABELS, SumModel, label_of
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import story


@story
async def test_a_request_that_waited_too_long_in_kafka_expires_without_touching_the_model(world):
    await world.publish("late", "later", headers=((TIMEOUT_MS, b"500"),))
    await world.clock.sleep(1.0)
    await world.publish("in time", headers=((TIMEOUT_MS, b"60000"),))
    model = SumModel()
    world.start(backend=model)
    answers = await world.answered(3)
    assert [answer.status for answer in answers] == [Status.EXPIRED, Status.EXPIRED, Status.OK]
    assert [answer.after for answer in answers] == [-1, 0, 1]
    assert sum(model.batches) == 1


@story
async def test_a_quiet_worker_lets_no_request_expire_because_a_full_batch_would_take_long(world):
    async def slowly(work):
        await asyncio.sleep(0.05)
        return work()

    world.start(offload=slowly, max_batch=1024)
    for asked in range(1, 6):
        await world.publish("a text", headers=((TIMEOUT_MS, b"10000"),))
        answers = await world.answered(asked)
    # The first burst after them: nothing is known of so large batches.
    await world.publish(*(f"text {number}" for number in range(500)), headers=((TIMEOUT_MS, b"10000"),))
    answers = await world.answered(505)
    assert {answer.status for answer in answers} == {Status.OK}


@pytest.mark.parametrize("stamp", [lambda _: -1, lambda _: 0, lambda now: now // 1000, lambda now: now * 1000])
def test_a_deadline_counts_from_the_fetch_where_the_timestamp_can_not_be_believed(stamp, caplog):
    @story
    async def play(world):
        caplog.set_level("WARNING")
        stamped = stamp(world.clock.now_ms())
        for _ in range(3):
            await world.publish("a text", headers=((TIMEOUT_MS, b"5000"),), timestamp_ms=stamped)
        world.start()
        assert {answer.status for answer in await world.answered(3)} == {Status.OK}
        await world.publish("another", headers=((TIMEOUT_MS, b"5000"),), timestamp_ms=stamped)
        await world.answered(4)
        said = [record for record in caplog.records if getattr(record, "event", "") == "timestamps.absurd"]
        assert len(said) == (0 if stamped == -1 else 1)

    play()


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (b"{", (), "bad-bytes"),
        (b'{"text": 3}', (), "bad-type"),
        (b"{}", (), "missing-text"),
        (None, (), "missing-text"),
        (b"\xff", ((CONTENT_TYPE, b"text/plain"),), "bad-bytes"),
        (b"x", ((CONTENT_TYPE, b"image/png"),), "unknown-content-type"),
        (b'{"text": "x"}', ((TIMEOUT_MS, b"soon"),), "bad-header"),
        (json.dumps({"text": "x" * 70_000}).encode(), (), "text-too-large"),
    ],
)
def test_a_bad_request_fails_alone_and_its_bytes_go_to_the_dead_letters(value, headers, code):
    @story
    async def play(world):
        await world.publish("before")
        await world.publish_value(value, key=b"k", headers=headers)
        await world.publish("behind")
        world.start()
        answers = await world.answered(3)
        assert [(a.status, a.reason) for a in answers] == [
            (Status.OK, None),
            (Status.FAILED, code),
            (Status.OK, None),
        ]
        (record,) = world.log(TOPICS.dead_letters)
        letter = dead_letter_from_record(record.key, record.value, record.headers)
        assert (letter.key, letter.value, tuple(letter.headers)) == (b"k", value, headers)
        assert (letter.topic, letter.partition, letter.offset, letter.error) == (TOPICS.requests, 0, 1, code)
        assert "requests[0]@1" in letter.message

    play()


@story
async def test_a_text_that_the_model_fails_on_fails_alone(world):
    world.start(backend=SumModel(poison=lambda text: text == b"poison"))
    await world.publish("a", "poison", "b", "c", "d", "poison", "e")
    answers = await world.answered(7)
    assert [answer.status is Status.FAILED for answer in answers] == [False, True, False, False, False, True, False]
    assert {answer.reason for answer in answers} == {None, "model-failed"}
    assert len(world.log(TOPICS.dead_letters)) == 2


@story
async def test_a_model_that_fails_on_its_canaries_stops_the_worker_and_dead_letters_nothing(world):
    broken = True
    world.start(
        backend=SumModel(poison=lambda _: broken), canaries=[(b"canary", label_of("canary"))], breaker_threshold=2
    )
    await world.publish(*(f"text {number}" for number in range(20)))
    await world.until(lambda: world.workers["w0"]._serving.broken)
    await world.clock.sleep(600)
    assert "canary" in world.workers["w0"].unready
    assert world.log(TOPICS.results) == world.log(TOPICS.dead_letters) == []
    broken = False
    answers = await world.answered(20)
    assert {answer.status for answer in answers} == {Status.OK}
    assert world.workers["w0"].unready is None


@story
async def test_text_id_and_headers_are_taken_from_where_a_team_has_them(world):
    shape = RequestShape(text_path="ticket.body", id_path="ticket.number", copy_fields={"queue": "queue"})
    world.start(shape=shape)
    value = {"queue": "billing", "ticket": {"number": 7, "body": "no invoice"}}
    await world.publish_value(json.dumps(value).encode(), key=b"k", headers=((TRACEPARENT, b"00-1"), ("other", b"x")))
    await world.publish_value(msgspec.msgpack.encode(value), headers=((CONTENT_TYPE, MSGPACK.encode()),))
    answers = await world.answered(2)
    assert [(answer.id, answer.label) for answer in answers] == [("7", label_of("no invoice"))] * 2
    first, second = world.log(TOPICS.results)
    assert first.key == b"k"
    assert dict(first.headers) == {TRACEPARENT: b"00-1", "queue": b"billing"}
    assert dict(second.headers) == {"queue": b"billing"}


@story
async def test_answers_can_be_messagepack_and_rank_labels(world):
    world.start(results_format="msgpack", ranking=1)
    await world.publish("text")
    await world.until(lambda: bool(world.log(TOPICS.results)))
    (record,) = world.log(TOPICS.results)
    assert dict(record.headers)[CONTENT_TYPE] == MSGPACK.encode()
    answer = msgspec.msgpack.decode(record.value)
    assert answer["ranking"] == [{"label": label_of("text"), "score": 1.0}]


@story
async def test_requests_gather_while_the_model_is_busy_and_no_timer_holds_a_lonely_one(world):
    model = SumModel()
    world.start(backend=model)
    await world.running()
    before = world.clock.monotonic()
    await world.publish("alone")
    await world.answered(1)
    assert world.clock.monotonic() - before < 0.2
    await world.publish(*(f"text {number}" for number in range(16)))
    await world.answered(17)
    assert max(model.batches) == 4


@story
async def test_a_full_queue_pauses_its_partition_and_loses_nothing(world):
    world.start(backend=SumModel())
    await world.running()
    await world.publish(*(f"text {number}" for number in range(100)))
    most = 0
    while len(world.log(TOPICS.results)) < 100:
        (partition,) = world.workers["w0"]._assignment.partitions.values()
        most = max(most, len(partition.queue))
        await world.clock.sleep(0.001)
    assert 0 < most <= 2 * 8
    assert [answer.offset for answer in world.answers()] == list(range(100))


@story
async def test_a_worker_that_stands_still_although_requests_wait_ends_its_process(world):
    async def fault(member, name):
        if name == "fetch.before":
            await world.clock.sleep(3600)

    run = world.start(watchdog=20.0)
    await world.running()
    world.fault = fault
    await world.publish("waits for ever", "and so does this")
    with pytest.raises(StalledError, match=r"requests\[0\]"):
        await asyncio.wait_for(run, 200)
    world.runs.clear()


def test_a_worker_that_goes_through_a_long_batch_step_by_step_does_not_stand_still(monkeypatch):
    steps = itertools.count()
    monkeypatch.setattr(MemoryConsumer, "long_batch_steps", lambda _: next(steps))

    @story
    async def play(world):
        ready = asyncio.Event()

        async def fault(member, name):
            if name == "fetch.before":
                await ready.wait()

        run = world.start(watchdog=20.0)
        await world.running()
        world.fault = fault
        await world.publish("behind a long batch")
        await world.clock.sleep(300)
        assert not run.done()
        ready.set()
        await world.answered(1)

    play()


@story
async def test_a_gap_in_the_requests_log_is_stepped_over_without_a_hole(world):
    world.start()
    await world.publish("a")
    world.cluster.log(TopicPartition(TOPICS.requests, 0)).add_gap()
    world.cluster.log(TopicPartition(TOPICS.requests, 0)).add_gap()
    await world.publish("b")
    answers = await world.answered(2)
    assert [(answer.offset, answer.after) for answer in answers] == [(0, -1), (3, 0)]


@story
async def test_an_error_that_trying_again_cannot_mend_ends_the_worker_with_its_reason(world):
    async def fault(member, name):
        if name == "produce.before":
            raise NotAuthorizedError("no right to write to results")

    run = world.start()
    await world.running()
    await world.publish("a")
    await world.answered(1)
    world.fault = fault
    await world.publish("b")
    with pytest.raises(NotAuthorizedError, match="no right"):
        await asyncio.wait_for(run, 60)
    world.runs.clear()


@story
async def test_an_attempt_that_may_not_be_written_ends_the_worker_with_its_reason(world):
    async def fault(member, name):
        if name == "produce.before":
            raise NotAuthorizedError("no right to write to models")

    run = world.start()
    await world.running()
    world.fault = fault
    await world.publish("a")
    with pytest.raises(NotAuthorizedError, match="models"):
        await asyncio.wait_for(run, 60)
    world.runs.clear()


def clock_suspected(caplog) -> int:
    return sum(getattr(record, "event", "") == "clock.suspect" for record in caplog.records)


@pytest.mark.parametrize("count", [150, 400])
def test_a_backlog_that_has_expired_is_no_fault_of_a_clock(caplog, count):
    @story
    async def play(world):
        await world.publish(*(["late"] * count), headers=((TIMEOUT_MS, b"1000"),))
        await world.clock.sleep(60)
        world.start(max_batch=512, waiting_per_partition=512)
        answers = await world.answered(count)
        assert {answer.status for answer in answers} == {Status.EXPIRED}
        assert not clock_suspected(caplog)

    play()


def test_requests_that_expire_as_they_come_are_a_fault_of_a_clock_and_said_once(caplog):
    @story
    async def play(world):
        world.start()
        await world.running()
        await world.clock.sleep(3)
        slow_ms = world.clock.now_ms() - 60_000
        for count in range(150):
            await world.publish("late", headers=((TIMEOUT_MS, b"1000"),), timestamp_ms=slow_ms)
            await world.publish("of no deadline, so it says nothing of clocks")
            await world.answered(2 * count + 2)
        assert [answer.status for answer in world.answers()] == [Status.EXPIRED, Status.OK] * 150
        assert clock_suspected(caplog) == 1

    play()


@story
async def test_an_answer_below_the_threshold_has_no_label_and_says_what_it_would_have_been(world):
    registry = CollectorRegistry()
    unsure = Model("v1", LABELS, SumModel(score=0.5), threshold=0.6)
    world.start(answering=unsure, metrics=WorkerMetrics(registry))
    await world.publish("text", "another")
    for text, answer in zip(("text", "another"), await world.answered(2), strict=True):
        assert (answer.status, answer.label, answer.score) == (Status.OK, None, 0.5)
        assert answer.ranking == (Score(label_of(text), 0.5),)
    assert registry.get_sample_value("headrace_answers_abstained_total") == 2
    assert registry.get_sample_value("headrace_answers_total", {"status": "ok"}) == 2


@story
async def test_an_answer_at_the_threshold_has_its_label_and_no_ranking_that_was_not_asked_for(world):
    world.start(answering=Model("v1", LABELS, SumModel(score=0.5), threshold=0.5))
    await world.publish("text")
    (answer,) = await world.answered(1)
    assert (answer.label, answer.ranking) == (label_of("text"), ())


@story
async def test_a_ranking_that_was_asked_for_is_kept_by_an_answer_without_a_label(world):
    world.start(answering=Model("v1", LABELS, SumModel(score=0.5), threshold=0.6), ranking=1)
    await world.publish("text")
    (answer,) = await world.answered(1)
    assert (answer.label, answer.ranking) == (None, (Score(label_of("text"), 0.5),))


@story
async def test_the_drift_of_the_answers_against_the_version_s_own_is_measured(world):
    registry = CollectorRegistry()

    def drift(of: str) -> float | None:
        return registry.get_sample_value("headrace_drift_psi", {"of": of})

    profile = Profile(labels=(1 / 3, 1 / 3, 1 / 3), confidence=(0.0,) * 9 + (1.0,))
    poison = SumModel(score=1.0, poison=lambda text: text == b"poison")
    canaries = ((b"canary", label_of("canary")),)
    world.start(
        answering=Model("v1", LABELS, poison, canaries, profile=profile),
        metrics=WorkerMetrics(registry),
        max_batch=512,
        waiting_per_partition=512,
    )
    await world.publish("poison", *(f"text {number}" for number in range(400)))
    await world.answered(401)
    assert drift("labels") is None
    await world.publish(*(f"text {number}" for number in range(400, 800)))
    await world.answered(801)
    assert drift("labels") < 0.1
    # The text that failed has no score, so it is not counted as an unsure answer.
    assert drift("confidence") == 0
    await world.publish(*(["text"] * 800))
    await world.answered(1601)
    assert drift("labels") > 0.25


@story
async def test_offsets_without_a_record_at_the_end_are_no_stall(world):
    run = world.start(watchdog=20.0)
    await world.publish("answered")
    await world.answered(1)
    world.cluster.log(TopicPartition(TOPICS.requests, 0)).add_gap()
    await world.clock.sleep(200)
    assert not run.done()
    await world.publish("and this one too")
    await world.answered(2)


@story
async def test_a_worker_without_a_broker_is_not_ready_and_knows_no_lag(world):
    registry = CollectorRegistry()
    world.start(metrics=WorkerMetrics(registry), watchdog=30.0)
    await world.publish("before")
    await world.answered(1)

    def lag() -> float | None:
        return registry.get_sample_value("headrace_lag_records", {"partition": "0"})

    await world.until(lambda: lag() == 0 and world.workers["w0"].unready is None)
    assert registry.get_sample_value("headrace_broker_connected") == 1

    async def nothing_answers(member: str, name: str) -> None:
        raise BrokerUnavailableError("nothing listens there")

    world.fault = nothing_answers
    await world.clock.sleep(8)
    assert lag() is None, "an old figure says that all is well"
    assert registry.get_sample_value("headrace_broker_connected") == 0
    await world.clock.sleep(100)
    assert "Kafka at memory has not answered for 10" in world.workers["w0"].unready
    assert world.workers["w0"].unready.endswith("(nothing listens there); lag unknown")
    world.fault = None
    await world.publish("behind")
    assert len(await world.answered(2)) == 2
    await world.until(lambda: lag() == 0 and world.workers["w0"].unready is None)
    assert registry.get_sample_value("headrace_broker_connected") == 1
    await world.running()
