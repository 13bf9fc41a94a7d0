"""The labeller under faults: ended, frozen, out of budget, with a teacher that is away, and fed hostile records."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import msgspec
import pytest

from headrace.core.clock import SystemClock
from headrace.core.selection import Why, Wish
from headrace.core.spending import Amount, day_of, spent
from headrace.kafka.interface import Outgoing, TopicPartition, UnknownTopicError
from headrace.kafka.retry import PatientSender
from headrace.labeller import known_texts, term
from headrace.labeller.account import Account
from headrace.labeller.answers import Chosen, Waiting
from headrace.labeller.gold import Agreement, GoldText
from headrace.labeller.teachers.interface import Failure, TeacherError
from headrace.registry.compacted_topics import TeachingLog, TeachingWriter
from headrace_schemas.codec import decode_review, decode_teaching_record, encode_machine_label, encode_teaching_record
from headrace_schemas.records import BarredText, LabellerState, MachineLabel, Score, Spending
from headrace_schemas.topics import machine_labels_key, teaching_key, text_key
from tests.support.teachers import PlainTeacher, label_of
from tests.unit.labeller.test_labeller import SETTINGS, Site, asks, running, until

PRIVATE = "nobody may read this"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(term, "FIRST_PAUSE_S", 0.02)


async def killed(labeller, when) -> None:
    """Run ``labeller`` and end it with no warning once ``when`` is met."""
    task = asyncio.create_task(labeller.run(asyncio.Event()))
    await until(when)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def total(site: Site) -> Amount:
    return spent(await site.spendings(), "default", day_of(SystemClock().now_ms()))


async def test_what_waits_or_is_asked_about_when_a_labeller_is_killed_is_labelled_by_the_next():
    site = Site()
    hung = asyncio.Event()

    async def hang() -> None:
        hung.set()
        await asyncio.Event().wait()

    settings = msgspec.structs.replace(SETTINGS, batch=2)
    async with running(site.labeller(PlainTeacher(), settings, process="first")) as _:
        await until(lambda: site.cluster.broker.committed("headrace-labeller"))
    for number in range(6):
        await site.answer(f"text {number}", label=None)
    dying = site.labeller(PlainTeacher(before=hang), settings)
    await killed(dying, lambda: hung.is_set() and site.metric("texts_chosen_total", why="abstained") == 6)
    teacher = PlainTeacher()
    async with running(site.labeller(teacher, settings, process="next")):
        await until(lambda: len(teacher.asked) == 6)
    assert len(await site.labels()) == 6
    assert len(await site.read("reviews", decode_review)) == 6
    # The batch that the killed one had reserved counts as spent.
    assert (await total(site)).texts == 8


async def test_a_review_that_is_missing_beside_its_label_is_published_without_another_call():
    site, teacher = Site(), PlainTeacher()
    before = MachineLabel(
        text="money", teacher="plain-1", labelled_at_ms=0, label="refund", scores=(Score("refund", 0.8),)
    )
    await site.send("machine-labels", 0, Outgoing(encode_machine_label(before), machine_labels_key(before)))
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        for text in ("money", "parcel", "parcel"):
            await site.answer(text, label=None)
        await until(lambda: site.metric("texts_left_total", why="known") == 2)
    reviews = await site.read("reviews", decode_review)
    assert sorted((one.offset, one.label) for one in reviews) == [(0, "refund"), (1, "delivery"), (2, "delivery")]
    assert teacher.asked == ["parcel"]


async def test_a_labeller_that_is_asked_to_stop_publishes_and_settles_the_call_under_way():
    site = Site()
    asked, free = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await free.wait()

    labeller = site.labeller(PlainTeacher(before=slow))
    stop = asyncio.Event()
    task = asyncio.create_task(labeller.run(stop))
    await asks(labeller)
    await site.answer("a text")
    await asked.wait()
    stop.set()
    asyncio.get_running_loop().call_later(0.05, free.set)
    await task
    assert list(await site.labels()) == ["a text"]
    (spending,) = await site.spendings()
    assert (spending.reserved_texts, spending.settled_texts) == (1, 1)


async def test_what_a_term_reserved_and_never_settled_stays_when_the_same_process_leads_again():
    site = Site()
    hung, calls = asyncio.Event(), []

    async def hang_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            hung.set()
            await asyncio.Event().wait()

    labeller = site.labeller(PlainTeacher(before=hang_once))
    async with running(labeller):
        await asks(labeller)
        await site.answer("first")
        await hung.wait()
        labeller._election._elected = False
        await until(lambda: site.metric("leads") == 0)
        labeller._election._elected = True
        await site.answer("second")
        await until(lambda: site.metric("texts_labelled_total") == 2)
    assert (await total(site)).texts == 3


async def test_who_leads_no_more_when_the_reservation_is_acknowledged_does_not_call():
    site, teacher = Site(), PlainTeacher()
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        reserve = labeller._term._account.reserve

        async def frozen_meanwhile(amount, texts):
            found = await reserve(amount, texts)
            labeller._election._elected = False
            return found

        labeller._term._account.reserve = frozen_meanwhile
        await site.answer("a text")
        await until(lambda: site.metric("leads") == 0)
    assert teacher.calls == 0
    assert (await total(site)).texts == 1


async def test_a_batch_larger_than_what_is_left_of_the_budget_is_made_smaller():
    site, teacher = Site(), PlainTeacher()
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, day_texts=5, waiting=20))
    async with running(labeller):
        await asks(labeller)
        for number in range(8):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("budget_exhausted") == 1 and site.metric("answers_seen_total") == 8)
        await until(lambda: len(teacher.asked) == 5)
    assert (await total(site)).texts == 5


async def test_an_endpoint_that_is_away_uses_up_no_budget_and_its_texts_are_asked_about_when_it_is_back():
    site, away = Site(), [True]

    def says(text: str) -> str | Failure:
        return Failure("unreachable", "no connection", passing=True) if away[0] else label_of(text)

    teacher = PlainTeacher(says, price=0.0)
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, tries=100))
    async with running(labeller):
        await asks(labeller)
        for number in range(4):
            await site.answer(f"text {number}")
        await until(lambda: teacher.calls >= 3)
        assert site.metric("teacher_up") == 0
        away[0] = False
        await until(lambda: site.metric("texts_labelled_total") == 4)
        assert site.metric("teacher_up") == 1
    assert (await total(site)).texts == 4


async def test_a_text_that_is_erased_while_the_teacher_is_away_is_not_sent_again():
    site, tries = Site(), []

    async def away() -> None:
        tries.append(1)
        if len(tries) == 1:
            record = BarredText(text_key=text_key("erase me"), barred_at_ms=0)
            await site.send("machine-labels", 0, Outgoing(encode_machine_label(record), machine_labels_key(record)))
            raise TeacherError("nobody listens")

    teacher = PlainTeacher(before=away)
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("erase me")
        await site.answer("keep me")
        await until(lambda: site.metric("texts_labelled_total") == 1)
    assert teacher.asked == ["keep me"]


async def test_an_erased_text_is_no_gold_text_whatever_ids_it_has():
    site = Site()
    for number in range(30):
        await site.person(str(number), "erased money" if number % 2 else f"money {number}", "refund")
    record = BarredText(text_key=text_key("erased money"), barred_at_ms=0)
    await site.send("machine-labels", 0, Outgoing(encode_machine_label(record), machine_labels_key(record)))
    teacher = PlainTeacher()
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, gold=1.0))
    async with running(labeller):
        await asks(labeller)
        for number in range(20):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("texts_labelled_total") == 20)
    assert any(text.startswith("money") for text in teacher.asked)
    assert not any("erased" in text for text in teacher.asked)


async def test_a_teacher_that_hangs_is_given_up_and_what_was_reserved_counts_as_spent():
    site = Site()
    teacher = PlainTeacher(before=lambda: asyncio.sleep(1000))
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, tries=2, longest_call=0.05))
    async with running(labeller):
        await asks(labeller)
        await site.answer("a text")
        await until(lambda: site.metric("texts_left_total", why="teacher") == 1)
    assert (await total(site)).texts == 2


async def test_topics_that_an_older_cluster_lacks_are_named_before_anything_is_paid_for():
    site, teacher = Site(), PlainTeacher()
    site.cluster.broker.delete_topic("reviews")
    site.cluster.broker.delete_topic("machine-labels")
    with pytest.raises(UnknownTopicError, match=r"machine-labels, reviews.*headrace topics apply"):
        await site.labeller(teacher).run(asyncio.Event())
    assert teacher.calls == 0


async def test_a_text_that_the_topic_of_labels_does_not_take_is_left_before_it_is_paid_for(monkeypatch):
    monkeypatch.setattr(term, "MOST_TEXT_BYTES", 100)
    site, teacher = Site(), PlainTeacher()
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("\x01" * 20)
        await site.answer("short")
        await until(lambda: site.metric("texts_labelled_total") == 1)
        await until(lambda: site.metric("texts_left_total", why="too-long") == 1)
    assert teacher.asked == ["short"]


def test_of_thousands_of_classes_the_lowest_scores_are_left_out():
    scores = tuple(Score("x" * 200 + str(number), 1 / (number + 2)) for number in range(8000))
    label = MachineLabel(text="t", teacher="plain-1", labelled_at_ms=0, label=scores[0].label, scores=scores)
    value = term.written(label)
    assert len(value) <= term.MOST_RECORD_BYTES
    kept = msgspec.json.decode(value)["scores"]
    assert [one["label"] for one in kept] == [one.label for one in scores[: len(kept)]]


async def test_reading_what_is_known_ends_where_compaction_took_the_last_records():
    site, teacher = Site(), PlainTeacher()
    await site.person("1", "kept", "refund")
    await site.person("2", "gone", "refund")
    site.cluster.broker.log(TopicPartition("labels", 0)).remove(1)
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("kept")
        await site.answer("gone")
        await until(lambda: site.metric("texts_labelled_total") == 1)
    assert teacher.asked == ["gone"]


async def test_labels_that_were_made_anew_are_read_from_their_beginning():
    site, teacher = Site(), PlainTeacher()
    for number in range(3):
        await site.person(str(number), f"old {number}", "refund")
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        site.cluster.broker.recreate("labels")
        await site.person("1", "new", "refund")
        await until(lambda: labeller._term._known.needs_none("new"))
        assert not labeller._term._known.needs_none("old 0")


async def test_answers_that_were_made_anew_or_overtaken_by_retention_are_gone_on_with_at_their_beginning():
    site = Site()
    async with running(site.labeller(PlainTeacher(), process="first")):
        await until(lambda: site.cluster.broker.committed("headrace-labeller"))
    for number in range(4):
        await site.answer(f"text {number}")
    site.cluster.broker.log(TopicPartition("results", 0)).truncate_before(2)
    teacher = PlainTeacher()
    labeller = site.labeller(teacher)
    async with running(labeller):
        await until(lambda: site.metric("texts_labelled_total") == 2)
        assert sorted(teacher.asked) == ["text 2", "text 3"]
        site.cluster.broker.recreate("results")
        await site.answer("text 4")
        await until(lambda: site.metric("texts_labelled_total") == 3)


HOSTILE = (
    b"",
    b"\x00\xff\xfe",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b"[" * 100_000,
    b'{"text": "\\ud800", "label": "\\ud800"}',
    b'{"kind": "machine-label", "text": "\\ud800", "teacher": "plain-1", "labelled_at_ms": 1}',
    b'{"kind": "machine-label", "text": "x", "teacher": "plain-1/../x", "labelled_at_ms": 1}',
    b'{"kind": "barred-text", "text_key": "not hex", "barred_at_ms": 1}',
    b'{"kind": "barred-text", "text_key": "a/b", "barred_at_ms": 1}',
    json.dumps({"text": PRIVATE, "label": 7}).encode(),
    json.dumps({"text": PRIVATE, "id": [PRIVATE]}).encode(),
    json.dumps({"kind": "machine-label", "text": PRIVATE, "teacher": "plain-1", "labelled_at_ms": PRIVATE}).encode(),
    json.dumps({"kind": "spending", "labeller": "default", "day": PRIVATE}).encode(),
    json.dumps(
        {
            "kind": "spending",
            "labeller": "default",
            "day": "2026-01-01",
            "process": "a",
            "reserved_texts": 0,
            "reserved_money": 0,
            "settled_texts": 0,
            "settled_money": 0,
            "written_at_ms": 0,
            "teacher": "\x1b[31m",
            "asking": ["not hex", PRIVATE, "a/b", ""],
        }
    ).encode(),
    *(
        json.dumps(
            {
                "results": "results",
                "partition": partition,
                "offset": offset,
                "label": "refund",
                "origin": "person",
                "reviewed_at_ms": 1,
            }
        ).encode()
        for partition, offset in ((-1, 0), (0, -1), (2**31, 2**62), (0, 10**30))
    ),
    json.dumps({"kind": "machine-label", "text": "x", "teacher": "pl\x1b[31min-1", "labelled_at_ms": 1}).encode(),
    json.dumps(
        {
            "kind": "spending",
            "labeller": "default",
            "day": "2026-01-01",
            "process": "a/b",
            "reserved_texts": -(2**62),
            "reserved_money": -1e308,
            "settled_texts": 0,
            "settled_money": 0,
            "written_at_ms": 0,
        }
    ).encode(),
    *(
        json.dumps({"offset": offset, "after": -1, "crc": 0, "status": "ok", "label": "refund", "score": 0.5}).encode()
        for offset in (-1, -(2**63), 0, 1, 50, 2**63 - 1, 2**64, 10**30)
    ),
)


async def test_hostile_records_on_every_topic_stop_nothing_and_no_text_is_in_the_logs(caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(known_texts, "LOOK_S", 0.0)
    site, teacher = Site(), PlainTeacher()
    site.cluster.broker.topic("results").grow(4)
    labeller = site.labeller(teacher)

    async def rubbish() -> None:
        for topic in ("requests", "results", "labels", "machine-labels", "teaching", "reviews"):
            for value in HOSTILE:
                for key in (None, b"", b"\xff" * 300, b"labeller/default", b"barred/zz", b"label/a/b/c"):
                    await site.send(topic, 0, Outgoing(value, key))
        for value in HOSTILE:
            await site.send("results", 3, Outgoing(value))
        for key in (None, b"\xff", b"barred/", b"label/x", b"spending/a/b/c"):
            for topic in ("labels", "machine-labels", "teaching"):
                await site.send(topic, 0, Outgoing(None, key))

    await rubbish()
    async with running(labeller):
        await asks(labeller)
        await rubbish()
        await site.answer(f"{PRIVATE} money", partition=1)
        await until(lambda: site.metric("texts_labelled_total") == 1)
    assert f"{PRIVATE} money" in teacher.asked
    assert PRIVATE not in caplog.text


async def test_what_claims_to_have_spent_less_than_nothing_makes_no_room():
    site, teacher = Site(), PlainTeacher()
    today = day_of(SystemClock().now_ms())
    forged = Spending(
        labeller="default",
        day=today,
        process="forged",
        reserved_texts=-1000,
        reserved_money=-1000.0,
        settled_texts=-1000,
        settled_money=-1000.0,
        written_at_ms=0,
    )
    await site.send("teaching", 0, Outgoing(encode_teaching_record(forged), teaching_key(forged)))
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, day_texts=2, batch=1))
    async with running(labeller):
        await asks(labeller)
        for number in range(4):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("budget_exhausted") == 1)
    assert len(teacher.asked) == 2


class Turned(SystemClock):
    """A clock whose day is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ms = 0

    def now_ms(self) -> int:
        return self.ms


def site_account(site: Site, clock: SystemClock | None = None) -> Account:
    clock = clock or SystemClock()
    sender = PatientSender(site.cluster, clock)
    log = TeachingLog(site.cluster, "teaching")
    return Account(log, TeachingWriter(sender, "teaching"), settings=SETTINGS, teacher="t", process="p", clock=clock)


async def test_a_call_that_ends_after_midnight_is_settled_on_the_day_of_its_reservation():
    site, clock = Site(), Turned()
    account = site_account(site, clock)
    clock.ms = 24 * 3600 * 1000 - 1
    first = await account.reserve(Amount(10, 1.0), [])
    clock.ms += 2
    second = await account.reserve(Amount(4, 0.4), [])
    await account.settle(first, Amount(9, 0.5))
    by_day = {one.day: (one.reserved_texts, one.settled_texts) for one in await site.spendings()}
    assert by_day == {"1970-01-01": (9, 9), "1970-01-02": (4, 0)}
    await account.settle(second, Amount())
    by_day = {one.day: (one.reserved_texts, one.settled_texts) for one in await site.spendings()}
    assert by_day == {"1970-01-01": (9, 9), "1970-01-02": (0, 0)}


async def test_agreement_is_counted_on_by_who_takes_over():
    site = Site()
    for number in range(20):
        await site.person(str(number), f"gold {number} money", "refund")
    settings = msgspec.structs.replace(SETTINGS, gold=1.0, batch=4)
    teacher = PlainTeacher()
    labeller = site.labeller(teacher, settings)
    async with running(labeller):
        await asks(labeller)
        for number in range(4):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("gold_agreement", kind="plain") == 1)
    states = [one for one in await site.read("teaching", decode_teaching_record) if isinstance(one, LabellerState)]
    assert (states[-1].stopped, states[-1].gold, states[-1].planted) == (False, 2, 2)
    following = site.labeller(PlainTeacher(), settings, process="q")
    async with running(following):
        await asks(following)
        await site.answer("one more")
        await until(lambda: len(following._term._agreement._plain) == 3)


def test_forged_counts_of_agreement_take_no_memory_and_are_no_more_than_all():
    agreement = Agreement(remembered=10)
    forged_state = LabellerState(
        labeller="default",
        teacher="t",
        stopped=False,
        written_at_ms=0,
        gold=10**15,
        gold_agreed=5 * 10**14,
        planted=-5,
        planted_agreed=10**15,
    )
    agreement.restore(forged_state)
    assert agreement.shares() == (0.5, None)
    agreement.add(GoldText("t", "refund", planted=True, of="t"), "refund")
    assert agreement.shares() == (0.5, 1.0)


class NoMetrics:
    def left(self, why: str, texts: int = 1) -> None: ...
    def waiting(self, texts: int) -> None: ...


def test_the_queue_is_bounded_by_bytes_and_knows_what_has_no_end():
    waiting = Waiting(100, NoMetrics(), most_bytes=100)
    made = [Chosen(0, at, at, "x" * 40, None, Wish(Why.MARGIN, at / 10), abstained=False) for at in range(4)]
    for one in made:
        waiting.put(one)
    assert len(waiting) == 2
    assert waiting.first_open(0, 9) == 0
    first, second = waiting.take(2)
    assert (first, second) == (made[0], made[1])
    assert waiting.first_open(0, 9) == 0
    waiting.done(first)
    assert waiting.first_open(0, 9) == 1
    waiting.put(second)
    assert waiting.first_open(0, 9) == 1
    waiting.done(second)
    assert waiting.first_open(0, 9) == 9
    assert waiting.first_open(1, 5) == 5
