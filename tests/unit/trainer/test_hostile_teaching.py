"""Records that nobody should write to the topics of teaching: a trainer counts them, and trains as without them."""

from __future__ import annotations

import logging

import msgspec
import pytest

from headrace.kafka.interface import Outgoing
from headrace_schemas.headers import CONTENT_TYPE
from headrace_schemas.records import Certificate, LabelRule, MachineLabel, Score
from headrace_schemas.topics import machine_label_key
from tests.support.trainer_cluster import NAME, TOPICS, story

MSGPACK = ((CONTENT_TYPE, b"application/msgpack"),)


def said(text: str = "x", label: str = "pos", teacher: str = "encoder-1", **scores: float) -> MachineLabel:
    given = tuple(Score(of, score) for of, score in scores.items())
    return MachineLabel(text=text, teacher=teacher, labelled_at_ms=1, label=label, scores=given)


def key_of(label: MachineLabel) -> bytes:
    return machine_label_key(label.text, "encoder-1")


ATTACKS = {
    "a megabyte of text": (said("x" * 1_000_000), "text-too-large"),
    "a megabyte of scores": (said(**{f"class {n}": 1e-9 for n in range(30_000)}), "bad-scores"),
    "a megabyte of a label": (said(label="y" * 1_000_000), "unknown-label"),
    "a label that does not exist": (said(label="nowhere"), "unknown-label"),
    "no number": (said(pos=float("nan")), "bad-scores"),
    "a negative score": (said(pos=-0.5), "bad-scores"),
    "endless": (said(pos=float("inf")), "bad-scores"),
    "more than one": (said(pos=1.0, neg=1.0), "bad-scores"),
    "another is likelier": (said(pos=0.1, neg=0.9), "bad-scores"),
    "a teacher with control characters": (said(teacher="enc\x1b[31m\x00der-1"), "bad-key"),
    "a teacher that is a path": (said(teacher="encoder-1/../2"), "bad-key"),
    "the key of another text": (said("y"), "bad-key"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_teachers_label_that_nobody_should_write_is_counted_by_its_reason_and_stops_nothing(attack, caplog):
    caplog.set_level(logging.DEBUG)
    record, reason = ATTACKS[attack]
    key = machine_label_key("x", "encoder-1") if reason == "bad-key" else key_of(record)

    @story
    async def play(world):
        world.add_machine_topic()
        value = msgspec.msgpack.encode(record)
        await world.producer.send_batch(TOPICS.machine_labels, 0, [Outgoing(value, key, headers=MSGPACK)])
        await world.teach("good")
        await world.label("a", "b", "c")
        world.start(labels=("pos", "neg"))
        await world.trained()
        assert world.metric("machine_labels") == 1.0
        assert world.metric("machine_labels_refused_total", reason=reason) == 1.0
        assert world.letters() == []

    play()
    assert not [one for one in caplog.records if one.exc_info]
    assert all("\x1b" not in str(getattr(one, "fields", "")) for one in caplog.records)
    assert max(len(str(getattr(one, "fields", ""))) for one in caplog.records) < 10_000


def test_rules_that_close_a_circle_and_a_strangers_certificate_change_nothing(caplog):
    stranger = Certificate(
        name=NAME, version="v-of-nobody", threshold=0.99, disagree=-1.0, confidence=2.0, rows=-5,
        accepted=10**15, errors=-1, bound=0.0, coverage=7.0, certified_at_ms=-1,
        signature="no base64", signed_by="nobody",
    )  # fmt: skip

    @story
    async def play(world):
        circle = [
            LabelRule(name=NAME, label=of, becomes=to, decided_at_ms=1) for of, to in (("pos", "neg"), ("neg", "pos"))
        ]
        await world.decree(*circle, stranger)
        await world.label("a", "b", "c")
        await world.label("d", label="neg")
        world.start(labels=("pos", "neg"))
        await world.trained()
        assert world.letters() == []
        assert world.metric("labels") == 4.0

    play()
    assert not [one for one in caplog.records if one.exc_info]
