"""Which rows certify a version, and what the watch does when the promise is broken."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from headrace.core.cascade import RANDOM_SLICE, Refused
from headrace.core.clock import SystemClock
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.learning.certifying import certificate_of, divided
from headrace.learning.data.files import Rows
from headrace.learning.data.random_slice import read_label_records, unseen
from headrace.learning.evaluate import Answered
from headrace.trainer.certificate import (
    NOTHING_ALONE,
    CascadeWatch,
    raise_for,
    watched,
)
from headrace.trainer.metrics import TrainerMetrics
from headrace_schemas.codec import encode_label
from headrace_schemas.records import Certificate, LabelledText, Lineage, OffsetRange
from tests.support.memory_kafka import MemoryCluster
from tests.support.versions import version_of
from tests.support.waiting import until

LABELS = "classify.labels"
VERSION = msgspec.structs.replace(
    version_of("v1", at=1000),
    lineage=Lineage(source=LABELS, digest="d", rows=3, offsets=(OffsetRange(0, 0, 3),)),
)


def label(text: str, *, source: str | None = RANDOM_SLICE, at: int = 2000, name: str = "yes") -> LabelledText:
    return LabelledText(text=text, label=name, source=source, labelled_at_ms=at)


def ask(texts) -> Answered:
    """Answers `yes`, as sure as the number in the text says."""
    return Answered(tuple("yes" for _ in texts), tuple(int(text.split()[1]) / 1000 for text in texts))


def rows_of(count: int, *, wrong_below: float, randomness: np.random.Generator) -> Rows:
    scores = randomness.integers(0, 1000, count)
    return Rows(
        tuple(f"text {score} number {place}" for place, score in enumerate(scores)),
        tuple("no" if score / 1000 < wrong_below else "yes" for score in scores),
    )


def test_only_the_random_slice_that_came_after_the_training_is_a_sample() -> None:
    labels = [
        (0, 0, label("trained on", at=500)),
        (0, 2, label("trained on too", source=None, at=500)),
        (0, 3, label("new")),
        (0, 4, label("new, and chosen because the model doubted", source="margin")),
        (0, 5, label("published again after the training", at=900)),
        (0, 6, label("trained on")),
        (1, 0, label("of a partition that was added later")),
    ]
    found = unseen(labels, VERSION)
    assert set(found.sample.texts) == {"new", "of a partition that was added later"}
    assert set(found.others.texts) == {labels[i][2].text for i in (0, 1, 3, 4)}


def test_a_version_is_certified_above_the_score_from_which_it_errs_no_more() -> None:
    rows = divided(rows_of(4000, wrong_below=0.4, randomness=np.random.default_rng(1)))
    assert len(rows.sample) > 3 * len(rows.others) > 0
    found = certificate_of(VERSION, ask, rows, disagree=0.02, now_ms=5)
    assert isinstance(found, Certificate)
    assert (found.name, found.version, found.certified_at_ms) == ("m", "v1", 5)
    assert 0.36 < found.threshold < 0.45
    assert found.bound <= 0.02
    assert found.coverage == found.accepted / found.rows


def test_a_version_that_errs_everywhere_is_not_certified_and_neither_is_one_without_rows() -> None:
    randomness = np.random.default_rng(1)
    refused = certificate_of(
        VERSION, ask, divided(rows_of(4000, wrong_below=1.0, randomness=randomness)), disagree=0.02, now_ms=5
    )
    assert isinstance(refused, Refused)
    assert isinstance(certificate_of(VERSION, ask, divided(Rows((), ())), disagree=0.02, now_ms=5), Refused)


def certified() -> Certificate:
    rows = divided(rows_of(4000, wrong_below=0.4, randomness=np.random.default_rng(1)))
    found = certificate_of(VERSION, ask, rows, disagree=0.02, now_ms=1500)
    assert isinstance(found, Certificate)
    return found


def test_a_bound_that_holds_raises_nothing_and_a_broken_one_raises_to_where_it_holds() -> None:
    certificate, randomness = certified(), np.random.default_rng(2)
    same = rows_of(1000, wrong_below=0.4, randomness=randomness)
    seen = watched(certificate, certificate.threshold, ask(same.texts), same)
    assert raise_for(certificate, certificate.threshold, seen, ask(same.texts), same, now_ms=9) is None
    worse = rows_of(2000, wrong_below=0.6, randomness=randomness)
    seen = watched(certificate, certificate.threshold, ask(worse.texts), worse)
    assert seen.lower > 0.02
    risen = raise_for(certificate, certificate.threshold, seen, ask(worse.texts), worse, now_ms=9)
    assert risen is not None
    assert 0.58 < risen.threshold < 0.66
    assert (risen.rule, risen.raised_at_ms, risen.figures["errors"]) == ("disagreement", 9, seen.errors)
    assert "text" not in risen.reason


def test_where_all_is_wrong_nothing_is_answered_alone() -> None:
    certificate = certified()
    rows = rows_of(300, wrong_below=1.0, randomness=np.random.default_rng(2))
    seen = watched(certificate, certificate.threshold, ask(rows.texts), rows)
    risen = raise_for(certificate, certificate.threshold, seen, ask(rows.texts), rows, now_ms=9)
    assert risen is not None
    assert risen.threshold == NOTHING_ALONE


async def published(cluster: MemoryCluster, labels: list[LabelledText | None], *, first: int = 0) -> None:
    producer = cluster.producer()
    await producer.start()
    records = [
        Outgoing(key=str(first + place).encode(), value=None if one is None else encode_label(one))
        for place, one in enumerate(labels)
    ]
    await producer.send_batch(LABELS, 0, records)
    await producer.stop()


async def test_the_labels_of_the_topic_are_the_last_of_each_id_without_rubbish_and_erased_ones() -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name=LABELS, partitions=1))
    await published(cluster, [label("a"), label("b"), label("c")])
    await published(cluster, [label("a again"), None])
    producer = cluster.producer()
    await producer.start()
    await producer.send_batch(LABELS, 0, [Outgoing(key=b"9", value=b"\xff"), Outgoing(key=None, value=b"{}")])
    found = await read_label_records(cluster, LABELS, 1000)
    assert [(offset, one.text) for _, offset, one in found] == [(3, "a again"), (2, "c")]


async def test_the_watch_follows_the_slice_and_says_when_the_promise_is_broken() -> None:
    cluster, registry = MemoryCluster(SystemClock()), CollectorRegistry()
    cluster.create_topic(TopicSpec(name=LABELS, partitions=1))

    async def offload(work):
        return work()

    watch = CascadeWatch(
        cluster,
        labels=LABELS,
        max_text_bytes=1000,
        open_version=lambda _: ask,
        offload=offload,
        clock=SystemClock(),
        metrics=TrainerMetrics(registry),
    )
    certificate = certified()
    watch.follow(VERSION, certificate, certificate.threshold)
    running = asyncio.create_task(watch.run())

    def bound(side: str) -> float | None:
        return registry.get_sample_value("headrace_cascade_disagreement_bound", {"side": side})

    try:
        right = [label(f"text 900 right {place}") for place in range(100)]
        before = [label(f"text 900 old {place}", at=1400, name="no") for place in range(100)]
        chosen = [label(f"text 900 chosen {place}", source="margin", name="no") for place in range(100)]
        await published(cluster, [*right, *before, *chosen])
        await until(lambda: (bound("upper") or 1) < 0.06, 60)
        assert watch.broken is None
        wrong = [label(f"text 900 wrong {place}", name="no") for place in range(30)]
        await published(cluster, wrong, first=1000)
        await until(lambda: watch.broken is not None, 60)
        assert (bound("lower") or 0) > 0.02
        watch.follow(None, None, 0.0)
        assert watch.broken is None
        assert bound("lower") is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
