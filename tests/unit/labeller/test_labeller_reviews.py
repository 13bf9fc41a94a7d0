"""What people said comes before what a teacher says: reviews by their labels, and texts that they erased."""

from __future__ import annotations

import msgspec
import pytest

from headrace.kafka.interface import Outgoing
from headrace.kafka.range_reader import read_topic
from headrace.labeller.teachers.interface import TeacherError
from headrace.learning.data.machine_labels import erasure_of
from headrace.learning.data.validation import text_keys
from headrace_schemas.codec import decode_review, encode_machine_label, encode_review
from headrace_schemas.headers import TRACEPARENT
from headrace_schemas.records import BarredText, Review
from headrace_schemas.topics import machine_labels_key, review_key
from tests.support.spans import CALLER, links_of, recorded
from tests.support.teachers import PlainTeacher
from tests.support.waiting import until
from tests.unit.labeller.test_labeller import SETTINGS, Site, asks, running


async def reviewed_by_a_person(site: Site, offset: int, label: str, partition: int = 0) -> None:
    review = Review(
        results="results", partition=partition, offset=offset, label=label, origin="person", reviewed_at_ms=1, by="ann"
    )
    key = review_key("results", partition, offset)
    await site.send("reviews", partition, Outgoing(encode_review(review), key))


async def found(site: Site) -> list[tuple[int, int, str, str]]:
    reviews = await site.read("reviews", decode_review)
    return [(one.partition, one.offset, one.label, one.origin) for one in reviews]


async def test_a_request_whose_review_a_person_took_back_is_reviewed_by_the_teacher():
    site = Site()
    for offset in range(2):
        await reviewed_by_a_person(site, offset, "refund")
    await site.send("reviews", 0, Outgoing(None, review_key("results", 0, 0)))
    labeller = site.labeller(PlainTeacher())
    async with running(labeller):
        await asks(labeller)
        for number in range(2):
            await site.answer(f"which parcel {number}", label=None, partition=0)
        await until(lambda: site.metric("reviews_total") == 1)
    reviews = await site.read("reviews", decode_review)
    assert [(one.offset, one.origin) for one in reviews if one.origin == "teacher"] == [(0, "teacher")]


@pytest.mark.parametrize("traced", [True, False])
async def test_a_review_belongs_to_the_trace_of_its_answer_and_malformed_ones_are_none(traced):
    site = Site()
    with recorded() as recorder:
        labeller = site.labeller(PlainTeacher(), **({"tracer": recorder.tracer} if traced else {}))
        async with running(labeller):
            await asks(labeller)
            await site.answer("which parcel", label=None, headers=(("tenant", b"a"), *CALLER.headers))
            await site.answer("what parcel", label=None, headers=((TRACEPARENT, b"00-" + b"1" * 900_000),))
            await site.answer("whose parcel", label=None)
            await until(lambda: site.metric("reviews_total") == 3)
        found = {}
        async for record in read_topic(site.cluster, "reviews", "reviews"):
            found[decode_review(record.value).offset] = tuple(record.headers)
        assert found == {0: tuple(CALLER.headers), 1: (), 2: ()}
        spans = recorder.spans()
        assert {one.name for one in spans} == ({"process results"} if traced else set())
        if traced:
            assert {pair for one in spans for pair in links_of(one)} == {(CALLER.trace_id, CALLER.span_id)}
            assert {one.attributes["headrace.teacher"] for one in spans} == {"plain-1"}


async def test_a_teacher_that_fails_fails_its_span():
    def fails():
        raise TeacherError("away")

    site = Site()
    with recorded() as recorder:
        labeller = site.labeller(PlainTeacher(before=fails), tracer=recorder.tracer)
        async with running(labeller):
            await asks(labeller)
            await site.answer("which parcel", label=None)
            await until(recorder.spans)
        assert {one.attributes["error.type"] for one in recorder.spans()} == {"TeacherError"}


async def test_a_request_whose_text_people_labelled_is_reviewed_by_that_label_and_takes_no_teacher():
    site, teacher = Site(), PlainTeacher()
    await site.person("1", "Where is  my PARCEL", "refund")
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        offset = await site.answer("where is my parcel", label=None, partition=1)
        await until(lambda: site.metric("reviews_total") == 1)
        (review,) = await site.read("reviews", decode_review)
    assert (review.partition, review.offset, review.label, review.origin) == (1, offset, "refund", "person")
    assert (review.id, review.score, review.by) == ("id-where is my parcel", None, None)
    assert not teacher.asked


async def test_a_label_that_a_person_gives_while_the_request_waits_reviews_it_also_where_nothing_is_asked():
    site = Site()

    def away() -> None:
        raise TeacherError("nobody listens")

    teacher = PlainTeacher(before=away)
    settings = msgspec.structs.replace(SETTINGS, tries=100, longest_wait=1000.0)
    labeller = site.labeller(teacher, settings)
    async with running(labeller):
        await asks(labeller)
        offset = await site.answer("which parcel", label=None)
        await until(lambda: teacher.calls == 1)
        labeller._term._wait(1000.0)
        await site.person("1", "Which  Parcel", "delivery")
        await until(lambda: site.metric("reviews_total") == 1)
        assert await found(site) == [(0, offset, "delivery", "person")]
        await until(lambda: site.metric("texts_left_total", why="known") == 1)
    assert not teacher.asked


async def test_where_people_disagree_about_a_text_none_of_their_labels_is_a_review():
    site, teacher = Site(), PlainTeacher()
    await site.person("1", "my money", "refund")
    await site.person("2", "my money", "delivery")
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("my money", label=None)
        await until(lambda: site.metric("texts_left_total", why="known") == 1)
        # The one who was wrong erases it.
        await site.send("labels", 0, Outgoing(None, b"2"))
        await site.answer("my money", label=None)
        await until(lambda: site.metric("reviews_total") == 1)
        assert await found(site) == [(0, 1, "refund", "person")]
    assert not teacher.asked


async def test_reviews_have_labels_by_the_rules_of_now_also_where_a_rule_makes_two_of_people_one():
    site, teacher = Site(), PlainTeacher()
    await site.rule("refund", "money")
    await site.person("1", "my cash", "refund")
    await site.person("2", "twice", "refund")
    await site.person("3", "twice", "payment")
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("my cash", label=None)
        await site.answer("money back", label=None)
        await until(lambda: site.metric("reviews_total") == 2)
        await site.rule("payment", "money")
        await until(lambda: "payment" in labeller._term._known.rules)
        await site.answer("twice", label=None)
        await until(lambda: site.metric("reviews_total") == 3)
    assert sorted(await found(site)) == [(0, 0, "money", "person"), (0, 1, "money", "teacher"),
                                         (0, 2, "money", "person")]  # fmt: skip
    assert teacher.asked == ["money back"]


async def test_a_label_that_is_no_longer_given_is_no_review_whoever_gave_it():
    site, teacher = Site(), PlainTeacher()
    await site.person("1", "my cash", "refund")
    await site.rule("refund", None)
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        for text in ("my cash", "money back", "my parcel"):
            await site.answer(text, label=None)
        await until(lambda: site.metric("reviews_total") == 1)
        await until(lambda: not len(labeller._term._waiting))
    assert await found(site) == [(0, 2, "delivery", "teacher")]


async def test_a_request_that_a_person_reviewed_gets_no_review_behind_it_also_while_the_teacher_is_asked():
    site = Site()

    async def a_person_is_faster() -> None:
        await reviewed_by_a_person(site, 1, "refund")

    teacher = PlainTeacher(before=a_person_is_faster)
    await reviewed_by_a_person(site, 0, "refund")
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, batch=2))
    async with running(labeller):
        await asks(labeller)
        for number in range(2):
            await site.answer(f"parcel {number}", label=None)
        await until(lambda: site.metric("texts_labelled_total") == 2)
        teacher.before = lambda: None
        await site.answer("parcel 2", label=None)
        await until(lambda: site.metric("reviews_total") == 1)
    assert sorted(await found(site)) == [(0, 0, "refund", "person"), (0, 1, "refund", "person"),
                                         (0, 2, "delivery", "teacher")]  # fmt: skip


async def test_reviews_of_a_topic_with_fewer_partitions_than_the_answers_are_published():
    site, teacher = Site(), PlainTeacher()
    for topic in ("requests", "results"):
        site.cluster.broker.topic(topic).grow(4)
    site.offsets += [0, 0]
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("parcel", label=None, partition=3)
        await until(lambda: site.metric("reviews_total") == 1)
    assert await found(site) == [(3, 0, "delivery", "teacher")]


SPELLINGS = ("Erase   ME please", "erase me please", "ERASE ME\tPLEASE")


def test_the_spellings_are_one_text_to_the_trainer():
    assert len(set(text_keys(SPELLINGS))) == 1


@pytest.mark.parametrize("gold", [0.0, 1.0])
async def test_an_erased_text_is_asked_about_in_no_spelling_and_is_no_gold_text(gold: float):
    site, teacher = Site(), PlainTeacher()
    for key in erasure_of(SPELLINGS[:1], []).barred:
        record = BarredText(text_key=key, barred_at_ms=0)
        await site.send("machine-labels", 0, Outgoing(encode_machine_label(record), machine_labels_key(record)))
    for number in range(20):
        await site.person(str(number), SPELLINGS[1] if number % 2 else f"money {number}", "refund")
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, gold=gold))
    async with running(labeller):
        await asks(labeller)
        for text in (*SPELLINGS, *(f"text {number}" for number in range(8))):
            await site.answer(text, label=None)
        await until(lambda: site.metric("texts_labelled_total") == 8)
    assert not [text for text in teacher.asked if "erase" in text.lower()]
    assert {offset for _, offset, *_ in await found(site)} == set(range(3, 11))
