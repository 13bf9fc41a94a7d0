"""The labeller over the twin: what it asks, what it publishes, what it spends, and when it asks nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from headrace.core.clock import SystemClock
from headrace.core.spending import day_of, spent
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.kafka.range_reader import read_topic
from headrace.labeller.labeller import Labeller
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.interface import Failure, TeacherError
from headrace.labeller.term import LabellerTopics
from headrace_schemas.codec import (
    decode_machine_label,
    decode_review,
    decode_teaching_record,
    encode_label,
    encode_machine_label,
    encode_models_record,
    encode_request,
    encode_result,
    encode_teaching_record,
)
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import (
    BarredText,
    ClassifyRequest,
    ClassifyResult,
    LabelledText,
    LabellerState,
    LabelRule,
    MachineLabel,
    Spending,
    Status,
)
from headrace_schemas.topics import machine_labels_key, models_key, review_key, teaching_key, text_key
from tests.support.memory_kafka import MemoryCluster
from tests.support.teachers import PlainTeacher, label_of
from tests.support.waiting import until

TOPICS = LabellerTopics("requests", "results", "labels", "machine-labels", "reviews", "teaching", "models")
LIMIT_S = 60.0
SETTINGS = LabellerSettings(random=0.0, least_margin=0.5, gold=0.0, gold_least=5, longest_wait=0.01)


class Site:
    """A twin with the topics, and labellers on it."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster(SystemClock())
        for name in msgspec.structs.astuple(TOPICS):
            partitions = 1 if name in {"teaching", "models"} else 2
            self.cluster.create_topic(TopicSpec(name=name, partitions=partitions))
        self.registry = CollectorRegistry()
        self.offsets = [0, 0]

    async def send(self, topic: str, partition: int, *records: Outgoing) -> None:
        producer = self.cluster.producer()
        await producer.start()
        await producer.send_batch(topic, partition, records)
        await producer.stop()

    async def answer(
        self,
        text: str,
        *,
        score: float = 0.6,
        label: str | None = "refund",
        partition: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> int:
        """A request and its answer, which is given without a label where ``label`` is None; its offset."""
        offset = self.offsets[partition]
        self.offsets[partition] += 1
        await self.send("requests", partition, Outgoing(encode_request(ClassifyRequest(text=text, id=f"id-{text}"))))
        answer = ClassifyResult(
            offset=offset,
            after=offset - 1,
            crc=0,
            status=Status.OK,
            version="v",
            label=label,
            score=score,
            id=f"id-{text}",
        )
        await self.send("results", partition, Outgoing(encode_result(answer), headers=headers))
        return offset

    async def person(self, key: str, text: str, label: str) -> None:
        await self.send("labels", 0, Outgoing(encode_label(LabelledText(text=text, label=label)), key.encode()))

    async def rule(self, label: str, becomes: str | None) -> None:
        rule = LabelRule(name="topics", label=label, becomes=becomes, decided_at_ms=1)
        await self.send("models", 0, Outgoing(encode_models_record(rule), models_key(rule)))

    async def read(self, topic: str, decode: Callable[..., Any]) -> list[Any]:
        return [decode(record.value) async for record in read_topic(self.cluster, topic, "records") if record.value]

    async def labels(self) -> dict[str, MachineLabel]:
        return {one.text: one for one in await self.read("machine-labels", decode_machine_label)}

    async def spendings(self) -> list[Spending]:
        """The last record of each key."""
        found: dict[tuple[str, str, str], Spending] = {}
        for one in await self.read("teaching", decode_teaching_record):
            if isinstance(one, Spending):
                found[one.labeller, one.day, one.process] = one
        return list(found.values())

    def labeller(
        self, teacher: PlainTeacher, settings: LabellerSettings = SETTINGS, *, process: str = "p", **more: Any
    ) -> Labeller:
        return Labeller(
            cluster=self.cluster,
            topics=TOPICS,
            model="topics",
            settings=settings,
            teacher=teacher,
            decode=compile_shape(RequestShape()),
            max_text_bytes=10_000,
            process=process,
            clock=SystemClock(),
            randomness=random.Random(1),
            metrics=LabellerMetrics(CollectorRegistry() if process != "p" else self.registry),
            **more,
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"headrace_labeller_{name}", labels) or 0.0


@asynccontextmanager
async def running(labeller: Labeller) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(labeller.run(stop))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


async def asks(labeller: Labeller) -> None:
    """Wait until it leads and has read all labels."""
    await until(
        lambda: labeller.unready is None and labeller._term is not None and not labeller._term.starting, LIMIT_S
    )


async def test_what_was_answered_with_little_margin_is_labelled_and_what_was_not_is_left():
    site, teacher = Site(), PlainTeacher()
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("where is my parcel", score=0.99)
        await site.answer("my money back", score=0.6)
        await site.answer("which parcel", score=0.55, partition=1)
        await until(lambda: site.metric("texts_labelled_total") == 2, LIMIT_S)
    labels = await site.labels()
    assert {text: one.label for text, one in labels.items()} == {"my money back": "refund", "which parcel": "delivery"}
    one = labels["which parcel"]
    assert (one.teacher, one.source, one.cost) == ("plain-1", "requests/1@0", 0.01)
    assert [(score.label, score.score) for score in one.scores] == [("delivery", 0.9), ("refund", 0.1)]
    assert not await site.read("reviews", decode_review)


async def test_a_request_without_a_label_is_reviewed_by_the_place_of_its_answer():
    site, teacher = Site(), PlainTeacher()
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        offset = await site.answer("money, money", score=0.95, label=None, partition=1)
        await until(lambda: site.metric("reviews_total") == 1, LIMIT_S)
    (review,) = await site.read("reviews", decode_review)
    assert (review.results, review.partition, review.offset, review.label) == ("results", 1, offset, "refund")
    assert (review.id, review.origin, review.by) == ("id-money, money", "teacher", "plain-1")
    (record,) = [one async for one in read_topic(site.cluster, "reviews", "reviews")]
    assert (record.partition, record.key) == (1, review_key("results", 1, offset))


async def test_a_text_that_is_labelled_barred_or_was_asked_is_not_asked_again():
    site, teacher = Site(), PlainTeacher()
    await site.person("1", "labelled by a person", "refund")
    barred = BarredText(text_key=text_key("erased"), barred_at_ms=0)
    asked = MachineLabel(text="asked before", teacher="plain-1", labelled_at_ms=0, label="refund")
    other = MachineLabel(text="asked by another prompt", teacher="plain-0", labelled_at_ms=0, label="refund")
    for record in (barred, asked, other):
        await site.send("machine-labels", 0, Outgoing(encode_machine_label(record), machine_labels_key(record)))
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        for text in ("labelled by a person", "erased", "asked before", "asked by another prompt", "new", "new"):
            await site.answer(text)
        await until(lambda: site.metric("texts_left_total", why="known") == 4, LIMIT_S)
        await until(lambda: site.metric("texts_labelled_total") == 2, LIMIT_S)
    assert sorted(teacher.asked) == ["asked by another prompt", "new"]


async def test_what_fails_for_good_is_said_once_and_what_passes_is_left_to_another_time():
    def says(text: str) -> str | Failure:
        if "bad" in text:
            return Failure("refused", "the endpoint refuses it")
        return Failure("busy", "try later", passing=True) if "busy" in text else label_of(text)

    site, teacher = Site(), PlainTeacher(says)
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, tries=1))
    async with running(labeller):
        await asks(labeller)
        for text in ("bad", "busy", "good"):
            await site.answer(text)
        await until(lambda: site.metric("texts_left_total", why="failed") == 1, LIMIT_S)
        await until(lambda: site.metric("texts_left_total", why="teacher") == 1, LIMIT_S)
        await site.answer("bad")
        await site.answer("busy")
        await until(lambda: teacher.asked.count("busy") == 2, LIMIT_S)
    assert teacher.asked.count("bad") == 1
    labels = await site.labels()
    assert labels["bad"].label is None
    assert labels["bad"].reason == "refused: the endpoint refuses it"
    assert "busy" not in labels


async def test_nothing_is_asked_beyond_the_budget_and_what_was_never_settled_counts():
    site, teacher = Site(), PlainTeacher()
    today = day_of(SystemClock().now_ms())
    dead = Spending(
        labeller="default",
        day=today,
        process="dead",
        reserved_texts=5,
        reserved_money=0.05,
        settled_texts=2,
        settled_money=0.02,
        written_at_ms=0,
    )
    await site.send("teaching", 0, Outgoing(encode_teaching_record(dead), teaching_key(dead)))
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, day_texts=8, batch=1))
    async with running(labeller):
        await asks(labeller)
        for number in range(6):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("budget_exhausted") == 1, LIMIT_S)
        await site.answer("one more", label=None)
    assert len(teacher.asked) == 3
    amount = spent(await site.spendings(), "default", today)
    assert (amount.texts, round(amount.money, 6)) == (8, 0.08)


async def test_money_bounds_as_texts_do():
    site, teacher = Site(), PlainTeacher(price=1.0)
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, month_money=2.5, batch=1))
    async with running(labeller):
        await asks(labeller)
        for number in range(4):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("budget_exhausted") == 1, LIMIT_S)
    assert len(teacher.asked) == 2


async def test_a_teacher_that_is_away_is_tried_again_costs_nothing_and_then_its_texts_are_left(caplog):
    site = Site()

    def away() -> None:
        raise TeacherError("nobody listens at the endpoint")

    teacher = PlainTeacher(before=away)
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, tries=2))
    async with running(labeller):
        await asks(labeller)
        await site.answer("a text")
        await until(lambda: site.metric("texts_left_total", why="teacher") == 1, LIMIT_S)
        assert site.metric("teacher_up") == 0
        teacher.before = lambda: None
        await site.answer("a later text")
        await until(lambda: site.metric("texts_labelled_total") == 1, LIMIT_S)
        assert site.metric("teacher_up") == 1
    assert teacher.calls == 3
    assert spent(await site.spendings(), "default", day_of(SystemClock().now_ms())).texts == 1


async def test_of_two_labellers_one_asks_and_when_it_is_killed_the_other_repeats_one_batch_at_most():
    site = Site()
    hung = asyncio.Event()

    async def hang() -> None:
        hung.set()
        await asyncio.Event().wait()

    first, second = PlainTeacher(), PlainTeacher()
    settings = msgspec.structs.replace(SETTINGS, batch=4)
    one = site.labeller(first, settings)
    async with running(one):
        await asks(one)
        other = site.labeller(second, settings, process="q")
        async with running(other):
            for number in range(8):
                await site.answer(f"text {number}")
            await until(lambda: site.metric("texts_labelled_total") == 8, LIMIT_S)
            assert not second.asked
    labels = await site.labels()
    assert len(labels) == 8
    third = PlainTeacher(before=hang)
    killed = site.labeller(third, settings, process="r")
    stop = asyncio.Event()
    dying = asyncio.create_task(killed.run(stop))
    await asks(killed)
    for number in range(8, 16):
        await site.answer(f"text {number}")
    await hung.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    reserved = spent(await site.spendings(), "default", day_of(SystemClock().now_ms()))
    assert 8 < reserved.texts <= 12


async def test_a_teacher_that_obeys_planted_orders_is_stopped_with_the_reason_until_an_operator_lets_it_go_on():
    site = Site()
    for number in range(20):
        await site.person(str(number), f"gold {number} money", "refund")

    def obeys(text: str) -> str:
        _, _, order = text.partition("\n\n")
        return next((label for label in ("delivery", "refund") if label in order), label_of(text))

    teacher = PlainTeacher(obeys)
    settings = msgspec.structs.replace(SETTINGS, gold=1.0, batch=4)
    labeller = site.labeller(teacher, settings)
    async with running(labeller):
        await asks(labeller)
        for number in range(40):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("stopped") == 1, LIMIT_S)
        asked = len(teacher.asked)
        assert "planted order" in (labeller.unready or "")
        await site.answer("a last text")
    assert site.metric("gold_agreement", kind="plain") == 1.0
    assert site.metric("gold_agreement", kind="planted") == 0.0
    states = [one for one in await site.read("teaching", decode_teaching_record) if isinstance(one, LabellerState)]
    assert states[-1].stopped
    assert "0 of the last" in (states[-1].reason or "")
    assert "gold" not in "".join((await site.labels()).keys())
    again = site.labeller(teacher, settings, process="again")
    async with running(again):
        await until(lambda: again.unready is not None and "planted order" in again.unready, LIMIT_S)
        assert len(teacher.asked) == asked
    resumed = site.labeller(PlainTeacher(), settings, process="resumed", resume=True)
    async with running(resumed):
        await asks(resumed)
        assert resumed.unready is None


async def test_answers_never_wait_and_the_queue_keeps_the_random_slice_and_the_least_margins():
    site = Site()
    free = asyncio.Event()
    teacher = PlainTeacher(before=free.wait)
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, waiting=3, batch=1, least_margin=1.0))
    async with running(labeller):
        await asks(labeller)
        await site.answer("held by the teacher", score=0.51)
        await until(lambda: teacher.calls == 1, LIMIT_S)
        for number, score in enumerate((0.9, 0.6, 0.8, 0.55, 0.7)):
            await site.answer(f"text {number}", score=score)
        await until(lambda: site.metric("answers_seen_total") == 6, LIMIT_S)
        await until(lambda: site.metric("texts_left_total", why="queue-full") == 2, LIMIT_S)
        free.set()
        await until(lambda: site.metric("texts_labelled_total") == 4, LIMIT_S)
    assert teacher.asked == ["held by the teacher", "text 3", "text 1", "text 4"]
