"""Texts over which labellers or their teacher die: they are asked about alone, and after some deaths no more."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from headrace.kafka.interface import Outgoing
from headrace.labeller.labeller import Labeller
from headrace.labeller.teachers.interface import Failure, Kind, TeacherName
from headrace.labeller.teachers.program import ProgramTeacher
from headrace.labeller.teachers.settings import TeacherSettings
from headrace_schemas.codec import decode_teaching_record, encode_machine_label, encode_teaching_record
from headrace_schemas.records import MachineLabel, Spending
from headrace_schemas.topics import machine_labels_key, teaching_key, text_key
from tests.support.teachers import LABELS, PlainTeacher, label_of
from tests.support.waiting import until
from tests.unit.labeller.test_labeller import SETTINGS, Site, asks, running

POISON = "a poisonous parcel"


class Dying(PlainTeacher):
    """Kills its labeller in every call that the poison is part of, as a library that crashes does."""

    def __init__(self) -> None:
        super().__init__()
        self.died = asyncio.Event()
        self.batches: list[list[str]] = []

    async def label(self, texts, tell=lambda *_: None):
        self.batches.append(list(texts))
        if any(text.startswith(POISON) for text in texts):
            self.died.set()
            await asyncio.Event().wait()
        return await super().label(texts, tell)


async def killed(labeller: Labeller, teacher: Dying) -> None:
    """Run ``labeller`` until its process would die: it says nothing more."""
    dying = asyncio.create_task(labeller.run(asyncio.Event()))
    await until(teacher.died.is_set)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)


async def test_a_text_that_kills_every_labeller_is_left_after_some_deaths_and_its_neighbours_are_labelled():
    site, texts = Site(), [f"parcel {number}" for number in range(4)]
    # The group's commit, so that all of them read the same answers.
    async with running(site.labeller(PlainTeacher(), process="none")):
        await until(lambda: site.cluster.broker.committed("headrace-labeller"))
    for text in (*texts[:2], POISON, *texts[2:]):
        await site.answer(text, label=None)
    companies = []
    for number in range(3):
        teacher = Dying()
        await killed(site.labeller(teacher, process=f"dies-{number}"), teacher)
        companies.append(len(teacher.batches[-1]))
    assert companies[0] == 5
    assert companies[1:] == [1, 1]
    last = Dying()
    async with running(site.labeller(last)):
        await until(lambda: site.metric("texts_left_total", why="kills-process") == 1)
        await until(lambda: _labelled(site, texts))
        assert not last.died.is_set()
        await site.answer(POISON, label=None)
        await until(lambda: site.metric("texts_left_total", why="known") >= 1)
    label = (await site.labels())[POISON]
    assert label.label is None
    assert (label.reason or "").startswith("kills-process: 3 labellers")


async def _labelled(site: Site, texts: list[str]) -> bool:
    labels = await site.labels()
    return all(text in labels and labels[text].label == "delivery" for text in texts)


async def test_a_labeller_that_is_asked_to_stop_in_a_call_accuses_no_text(monkeypatch):
    monkeypatch.setattr("headrace.labeller.labeller.STOP_S", 0.1)
    site, called = Site(), asyncio.Event()

    async def hang() -> None:
        called.set()
        await asyncio.Event().wait()

    labeller = site.labeller(PlainTeacher(before=hang))
    async with running(labeller):
        await asks(labeller)
        await site.answer("a parcel")
        await until(called.is_set)
        (spending,) = await site.spendings()
        assert spending.asking == (text_key("a parcel"),)
    (spending,) = await site.spendings()
    assert (spending.asking, spending.teacher, spending.reserved_texts, spending.settled_texts) == ((), "plain-1", 1, 0)


async def test_deaths_in_calls_of_another_teacher_or_labeller_accuse_nobody():
    site, teacher = Site(), PlainTeacher()
    for number in range(6):
        of = {"teacher": "plain-0"} if number % 2 else {"labeller": "another"}
        record = Spending(**{
            "labeller": "default", "day": "2026-01-01", "process": f"dead-{number}", "reserved_texts": 1,
            "reserved_money": 0.0, "settled_texts": 0, "settled_money": 0.0, "written_at_ms": 0, "teacher": "plain-1",
            "asking": (text_key("a parcel"),), **of,
        })  # fmt: skip
        await site.send("teaching", 0, Outgoing(encode_teaching_record(record), teaching_key(record)))
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer("a parcel")
        await until(lambda: site.metric("texts_labelled_total") == 1)


async def test_a_gold_text_that_was_part_of_a_deadly_call_is_drawn_no_more():
    site = Site()
    for number in range(12):
        await site.person(str(number), POISON if number % 2 else f"money {number}", "refund")
    dead = Spending(
        labeller="default", day="2026-01-01", process="dead", reserved_texts=1, reserved_money=0.0, settled_texts=0,
        settled_money=0.0, written_at_ms=0, teacher="plain-1", asking=(text_key(POISON),),
    )  # fmt: skip
    await site.send("teaching", 0, Outgoing(encode_teaching_record(dead), teaching_key(dead)))
    teacher = PlainTeacher()
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, gold=1.0))
    async with running(labeller):
        await asks(labeller)
        for number in range(20):
            await site.answer(f"parcel {number}")
        await until(lambda: site.metric("texts_labelled_total") == 20)
    assert any(text.startswith("money") for text in teacher.asked)
    assert not [text for text in teacher.asked if text.startswith(POISON)]
    records = [one for one in await site.read("teaching", decode_teaching_record) if isinstance(one, Spending)]
    asked = [one for one in records if one.process != "dead" and one.asking]
    assert {text_key(f"parcel {number}") for number in range(20)} <= {key for one in asked for key in one.asking}


async def test_a_text_over_which_the_teacher_dies_is_tried_alone_and_then_left_for_good():
    site = Site()
    batches: list[list[str]] = []

    class Program(PlainTeacher):
        async def label(self, texts, tell=lambda *_: None):
            batches.append(list(texts))
            self.says = (
                (lambda _: Failure("ended", "it ended", passing=True, deadly=True)) if POISON in texts else label_of
            )
            return await super().label(texts, tell)

    labeller = site.labeller(Program())
    async with running(labeller):
        await asks(labeller)
        for text in ("parcel 0", POISON, "parcel 1"):
            await site.answer(text, label=None)
        await until(lambda: site.metric("texts_left_total", why="kills-process") == 1)
        await until(lambda: site.metric("texts_labelled_total") == 2)
    assert [len(batch) for batch in batches if POISON in batch] == [len(batches[0]), 1, 1]
    assert (await site.labels())[POISON].reason == "kills-process: ended: it ended"


PROGRAM = """
import json, sys
for line in sys.stdin:
    one = json.loads(line)
    if "poison" in one["text"]:
        sys.exit(3)
    print(json.dumps({"n": one["n"], "label": "delivery"}), flush=True)
"""


async def test_a_program_that_dies_over_a_text_is_started_anew_and_its_neighbours_are_labelled(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    name = TeacherName(Kind.PROGRAM, f"{sys.executable} {file}")
    teacher = ProgramTeacher(name, LABELS, TeacherSettings(), {})
    site = Site()
    labeller = site.labeller(teacher, msgspec.structs.replace(SETTINGS, batch=4))
    async with running(labeller):
        await asks(labeller)
        for number in range(6):
            await site.answer(POISON if number == 0 else f"parcel {number}", label=None)
        await until(lambda: site.metric("texts_labelled_total") == 5)
        await until(lambda: site.metric("texts_left_total", why="kills-process") == 1)
    await teacher.close()
    labels = await site.labels()
    assert {text for text, one in labels.items() if one.label is None} == {POISON}


async def test_the_mark_of_a_deadly_text_goes_with_a_new_teacher():
    site, teacher = Site(), PlainTeacher(version="plain-2")
    left = MachineLabel(text=POISON, teacher="plain-1", labelled_at_ms=0, reason="kills-process: it died")
    await site.send("machine-labels", 0, Outgoing(encode_machine_label(left), machine_labels_key(left)))
    labeller = site.labeller(teacher)
    async with running(labeller):
        await asks(labeller)
        await site.answer(POISON)
        await until(lambda: site.metric("texts_labelled_total") == 1)
