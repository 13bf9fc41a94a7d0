"""A worker that follows an alias: what it loads, when it swaps, and what it does when a version can't be loaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from headrace.core.errors import UserError
from headrace.kafka.interface import NotAuthorizedError, TopicSpec
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import SeveralVersionsError
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace.worker.versions import LONGEST_RETRY_S, POLL_S
from headrace.worker.worker import WorkerTopics
from headrace_schemas.codec import decode_result
from headrace_schemas.records import ModelVersion, Status
from tests.support.models import LABELS, SumModel, label_of
from tests.support.simulation import SETTINGS, TOPICS
from tests.support.versions import certificate_of, raise_of
from tests.support.worker_cluster import story


class Store:
    """Loads versions in ``seconds`` of turned time; ``faults`` are raised instead of giving the version."""

    def __init__(self, world: Any, seconds: float = 1.0) -> None:
        self.world = world
        self.seconds = seconds
        self.loads: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.backends: dict[str, SumModel] = {}

    async def load(self, record: ModelVersion) -> Model:
        self.loads.append(record.version)
        await self.world.clock.sleep(self.seconds)
        if record.version in self.faults:
            raise self.faults[record.version]
        # Labels of its own, so that an answer which mixes two versions shows.
        labels = tuple(f"{label} by {record.version}" for label in LABELS)
        backend = self.backends.get(record.version, SumModel())
        return Model(record.version, labels, backend, ((b"canary", f"{label_of('canary')} by {record.version}"),))


def versions(name: str, *, previous: str | None = None) -> Callable[[Any], Any]:
    async def publish(world: Any) -> None:
        for version in ("v1", "v2", "v3"):
            await world.publish_version(version)
        await world.point_alias(name, previous=previous)

    return publish


async def answered_by(world: Any, version: str) -> None:
    """Publish until an answer names ``version``; each answer's label is the same version's."""
    while not (answers := world.answers()) or answers[-1].version != version:
        await world.publish("text")
        await world.answered(len(answers) + 1)
    assert all(answer.label == f"{label_of('text')} by {answer.version}" for answer in world.answers())


async def answering_v1(world: Any) -> Store:
    """A worker answers by v1, which it loaded from the store."""
    store = Store(world)
    await versions("v1")(world)
    world.start(answering=store.load)
    await answered_by(world, "v1")
    return store


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == name]


@story
async def test_a_moved_alias_is_followed_and_every_answer_is_of_one_version(world):
    store = await answering_v1(world)
    await world.point_alias("v2", previous="v1")
    await answered_by(world, "v2")
    assert {answer.version for answer in world.answers()} == {"v1", "v2"}
    assert store.loads == ["v1", "v2"]
    assert [answer.offset for answer in world.answers()] == list(range(len(world.answers())))


@story
async def test_a_certificate_and_a_raise_give_answers_below_them_no_label_at_once_and_a_rollback_forgets_nothing(world):
    store = Store(world)
    store.backends["v1"] = SumModel(score=0.85)
    store.backends["v2"] = SumModel(score=0.85)
    await versions("v1")(world)
    world.start(answering=store.load)
    await answered_by(world, "v1")

    async def next_label():
        await world.clock.sleep(2 * POLL_S)
        await world.publish("text")
        return (await world.answered(len(world.answers()) + 1))[-1].label

    certificate = certificate_of("v1", name=SETTINGS.model_name, at=world.clock.now_ms())
    writer = ModelsWriter(world.producer, TOPICS.models)
    await writer.publish([certificate])
    assert await next_label() is not None
    risen = raise_of("v1", name=SETTINGS.model_name, at=world.clock.now_ms())
    await writer.publish([risen])
    assert await next_label() is None
    assert world.answers()[-1].status is Status.OK
    await world.point_alias("v2", previous="v1")
    await world.until(lambda: world.workers["w0"]._serving.version == "v2")
    assert await next_label() is not None
    await world.point_alias("v1", previous="v2")
    await world.until(lambda: world.workers["w0"]._serving.version == "v1")
    assert await next_label() is None
    later = msgspec.structs.replace(certificate, threshold=0.84, certified_at_ms=world.clock.now_ms() + 1)
    await writer.publish([later])
    assert await next_label() is not None
    assert store.loads == ["v1", "v2"]


@story
async def test_requests_are_answered_by_the_old_version_while_the_next_is_loaded(world):
    store = await answering_v1(world)
    store.seconds = 100.0
    await world.point_alias("v2")
    await world.clock.sleep(50)
    before = world.clock.monotonic()
    await answered_by(world, "v1")
    assert world.clock.monotonic() - before < 1


@story
async def test_a_batch_that_is_being_computed_ends_on_the_version_that_it_began_with(world):
    store, free = Store(world, 0.0), asyncio.Event()

    async def offload(work):
        await free.wait()
        return work()

    await versions("v1")(world)
    run_in = world.start(answering=store.load, offload=offload)
    await world.running()
    await world.publish("text")
    await world.clock.sleep(1)
    await world.point_alias("v2")
    await world.until(lambda: world.workers["w0"]._serving.version == "v2")
    free.set()
    (answer,) = await world.answered(1)
    assert (answer.version, answer.label) == ("v1", f"{label_of('text')} by v1")
    assert not run_in.done()
    await answered_by(world, "v2")


@story
async def test_a_rollback_needs_no_loading(world):
    store = await answering_v1(world)
    await world.point_alias("v2", previous="v1")
    await answered_by(world, "v2")
    for version, previous in (("v1", "v2"), ("v2", "v1"), ("v1", "v2")):
        await world.point_alias(version, previous=previous)
        await world.clock.sleep(2 * POLL_S)
        await world.publish("text")
        assert (await world.answered(len(world.answers()) + 1))[-1].version == version
    assert store.loads == ["v1", "v2"]


@story
async def test_a_worker_that_started_after_the_promotion_loads_the_way_back_too(world):
    store = Store(world)
    await versions("v2", previous="v1")(world)
    world.start(answering=store.load)
    await answered_by(world, "v2")
    await world.clock.sleep(10)
    assert store.loads == ["v2", "v1"]
    await world.point_alias("v1", previous="v2")
    await answered_by(world, "v1")
    assert store.loads == ["v2", "v1"]


@story
async def test_a_worker_that_keeps_no_previous_version_loads_it_again(world):
    store = Store(world)
    await versions("v1")(world)
    world.start(answering=store.load, keep_previous=False)
    await answered_by(world, "v1")
    await world.point_alias("v2", previous="v1")
    await answered_by(world, "v2")
    await world.point_alias("v1", previous="v2")
    await answered_by(world, "v1")
    assert store.loads == ["v1", "v2", "v1"]


@story
async def test_of_an_alias_that_moves_fast_only_the_newest_version_is_loaded_and_a_hanging_load_holds_nothing_up(world):
    store = await answering_v1(world)
    store.seconds = 100.0
    await world.point_alias("v2")
    await world.until(lambda: store.loads == ["v1", "v2"])
    store.seconds = 1.0
    await world.point_alias("v3")
    before = world.clock.monotonic()
    await answered_by(world, "v3")
    assert world.clock.monotonic() - before < 3
    await world.clock.sleep(200)
    await answered_by(world, "v3")
    assert "v2" not in {answer.version for answer in world.answers()}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_running_loudly_until_it_can(caplog):
    @story
    async def play(world):
        registry = CollectorRegistry()
        store = Store(world)
        store.faults["v2"] = UserError("the store is unreachable")
        await versions("v1")(world)
        world.start(answering=store.load, metrics=WorkerMetrics(registry))
        await answered_by(world, "v1")
        await world.point_alias("v2", previous="v1")
        await world.clock.sleep(1000)
        await answered_by(world, "v1")
        tries = store.loads.count("v2")
        # Ever later, but never later than the longest wait.
        assert 1000 / (LONGEST_RETRY_S + 2) < tries < 30
        assert registry.get_sample_value("headrace_model_load_failures_total") == tries
        said = events(caplog, "model.load_failed")
        assert len(said) == tries
        assert said[0].levelno == logging.ERROR
        assert said[0].fields["why"] == "the store is unreachable"
        assert said[0].fields["answers"] == "v1"
        del store.faults["v2"]
        await world.clock.sleep(LONGEST_RETRY_S + 2)
        await answered_by(world, "v2")

    play()


def test_a_way_back_that_cannot_be_loaded_is_said_once_and_not_tried_again(caplog):
    @story
    async def play(world):
        store = Store(world)
        store.faults["v1"] = UserError("pruned")
        await versions("v2", previous="v1")(world)
        world.start(answering=store.load)
        await answered_by(world, "v2")
        await world.clock.sleep(1000)
        assert store.loads == ["v2", "v1"]
        assert len(events(caplog, "model.not_kept")) == 1
        # As the alias's own version it is wanted, and tried for as long as it takes.
        await world.point_alias("v1", previous="v2")
        await world.clock.sleep(10)
        del store.faults["v1"]
        await world.clock.sleep(20)
        await answered_by(world, "v1")

    play()


@story
async def test_a_way_back_is_tried_again_when_the_alias_has_moved(world):
    store = Store(world)
    store.faults["v1"] = UserError("for a while")
    await versions("v2", previous="v1")(world)
    world.start(answering=store.load)
    await world.until(lambda: store.loads == ["v2", "v1"])
    await world.clock.sleep(5)
    del store.faults["v1"]
    await world.point_alias("v3", previous="v2")
    await answered_by(world, "v3")
    await world.point_alias("v2", previous="v1")
    await answered_by(world, "v2")
    await world.until(lambda: store.loads == ["v2", "v1", "v3", "v1"])


def test_a_load_that_hangs_has_failed_when_its_time_is_over(caplog):
    @story
    async def play(world):
        store = Store(world, 1e6)
        await versions("v1")(world)
        world.start(answering=store.load, load_timeout=20.0)
        await world.clock.sleep(60)
        said = events(caplog, "model.load_failed")
        assert [record.fields["why"] for record in said] == ["memory://v1 was not loaded within 20 s"] * 2

    play()


def test_an_alias_that_points_at_a_version_without_a_record_is_named_and_the_old_version_answers_on(caplog):
    @story
    async def play(world):
        await answering_v1(world)
        await world.point_alias("never-published", previous="v1")
        await world.clock.sleep(60)
        (said,) = events(caplog, "model.unknown")
        assert (said.fields["version"], said.fields["answers"]) == ("never-published", "v1")
        await answered_by(world, "v1")
        await world.point_alias("v2", previous="v1")
        await answered_by(world, "v2")

    play()


def test_a_version_that_its_alias_follows_in_a_moment_is_no_reason_to_warn(caplog):
    caplog.set_level("WARNING", logger="headrace")

    @story
    async def play(world):
        world.start(answering=Store(world).load)
        await world.clock.sleep(20)
        assert len(events(caplog, "model.awaited")) == 1
        await world.publish_version("v1")
        await world.clock.sleep(2)
        await world.point_alias("v1", previous=None)
        await answered_by(world, "v1")
        assert len(events(caplog, "model.awaited")) == 1

    play()


def test_a_version_without_the_alias_is_told_of_once_that_has_lasted(caplog):
    @story
    async def play(world):
        world.start(answering=Store(world).load)
        await world.clock.sleep(20)
        await world.publish_version("v1")
        await world.clock.sleep(8)
        assert "has no version or alias" in events(caplog, "model.awaited")[-1].fields["why"]

    play()


def test_without_a_version_a_worker_waits_says_so_and_owns_no_partition(caplog):
    caplog.set_level("INFO", logger="headrace")

    @story
    async def play(world):
        store = Store(world)
        world.start(answering=store.load)
        await world.publish("text")
        await world.clock.sleep(60)
        assert "no version yet" in world.workers["w0"].unready
        assert "headrace models publish" in world.workers["w0"].unready
        # At once, and then ever more rarely.
        assert [said.levelname for said in events(caplog, "model.awaited")] == ["WARNING", "INFO", "INFO"]
        assert not world.workers["w0"]._assignment.joined
        await versions("v1")(world)
        (answer,) = await world.answered(1)
        assert (answer.version, answer.status) == ("v1", Status.OK)
        assert world.workers["w0"].unready is None

    play()


@story
async def test_a_worker_whose_alias_is_mistyped_names_the_near_one_and_does_not_advise_to_publish(world):
    await world.publish_version("v1")
    await world.point_alias("v1", alias="champoin")
    world.start(answering=Store(world).load)
    await world.until(lambda: "did you mean 'champoin'?" in world.workers["w0"]._follower.waiting_for)
    assert "publish" not in world.workers["w0"]._follower.waiting_for


@story
async def test_a_version_answers_for_good_where_no_alias_has_its_name(world):
    await versions("v1")(world)
    world.start(answering=Store(world).load, model="v2")
    await answered_by(world, "v2")
    await world.point_alias("v3")
    await world.clock.sleep(30)
    await answered_by(world, "v2")


@story
async def test_a_beginning_names_the_version_that_was_found_first(world):
    await world.publish_version("20260101T000000Z-abcdef")
    world.start(answering=Store(world).load, model="abcd")
    await answered_by(world, "20260101T000000Z-abcdef")
    await world.publish_version("20260102T000000Z-abcd00")
    await world.clock.sleep(30)
    await answered_by(world, "20260101T000000Z-abcdef")


@story
async def test_a_beginning_of_several_versions_ends_the_worker_with_both_named(world):
    for version in ("20260101T000000Z-aaa", "20260102T000000Z-bbb"):
        await world.publish_version(version)
    run = world.start(answering=Store(world).load, model="2026")
    with pytest.raises(SeveralVersionsError, match="-aaa, 20260102T000000Z-bbb") as raised:
        await run
    assert raised.value.exit_code == 2
    world.runs.clear()


@story
async def test_a_version_that_is_not_there_is_waited_for_with_words_and_taken_when_it_comes(world):
    await versions("v1")(world)
    world.start(answering=Store(world).load, model="20260101T000000Z-abcdef")
    worker = world.workers["w0"]
    await world.until(lambda: "no version or alias '20260101T000000Z-abcdef'" in worker._follower.waiting_for)
    assert "versions v3, v2, v1 (`headrace models list`)" in worker.unready
    await world.publish_version("20260101T000000Z-abcdef")
    await answered_by(world, "20260101T000000Z-abcdef")


@story
async def test_a_first_version_that_cannot_be_loaded_is_named_as_what_is_waited_for(world):
    store = Store(world)
    store.faults["v1"] = UserError("no such bucket")
    await versions("v1")(world)
    world.start(answering=store.load)
    await world.clock.sleep(10)
    assert "no such bucket" in world.workers["w0"].unready
    await world.point_alias("v2")
    await answered_by(world, "v2")


@story
async def test_a_worker_that_waits_for_its_first_version_stops_when_told_to(world):
    world.start(answering=Store(world).load)
    await world.clock.sleep(5)
    await world.stop("w0")


@story
async def test_a_version_that_fails_on_everything_stops_answering_until_the_alias_moves(world):
    store = Store(world)
    store.backends["v2"] = SumModel(poison=lambda _: True)
    await versions("v1")(world)
    world.start(answering=store.load, breaker_threshold=2, breaker_retry=5.0)
    await answered_by(world, "v1")
    count = len(world.answers())
    await world.point_alias("v2", previous="v1")
    await world.until(lambda: world.workers["w0"]._serving.version == "v2")
    await world.publish(*(["text"] * 9))
    await world.until(lambda: world.workers["w0"]._serving.broken)
    await world.clock.sleep(60)
    assert len(world.answers()) == count
    assert "v2 fails on its own canary texts" in world.workers["w0"].unready
    before = world.clock.monotonic()
    await world.point_alias("v1", previous="v2")
    answers = await world.answered(count + 9)
    # At once, and not when the next try was due.
    assert world.clock.monotonic() - before < 1
    assert {(answer.version, answer.status) for answer in answers} == {("v1", Status.OK)}
    assert world.log(TOPICS.dead_letters) == []
    assert world.workers["w0"].unready is None


@story
async def test_a_models_topic_that_may_not_be_read_any_more_ends_the_worker_with_its_reason(world):
    store = Store(world)
    await versions("v1")(world)
    run = world.start(answering=store.load)
    await answered_by(world, "v1")
    follower = world.workers["w0"]._follower

    async def look():
        raise NotAuthorizedError("no right to read models")

    follower._log.look = look
    with pytest.raises(NotAuthorizedError, match="no right"):
        await asyncio.wait_for(run, 60)
    world.runs.clear()


@story
async def test_a_second_group_answers_the_same_requests_by_another_alias_into_its_own_results(world):
    await versions("v1")(world)
    await world.point_alias("v2", alias="challenger")
    world.cluster.create_topic(TopicSpec(name="shadow", partitions=1))
    shadow = WorkerTopics(TOPICS.requests, "shadow", TOPICS.dead_letters, TOPICS.models, TOPICS.workers)
    world.start("w0", answering=Store(world).load)
    world.start("w1", answering=Store(world).load, model="challenger", group="shadow", topics=shadow)
    await world.publish(*(f"text {number}" for number in range(5)))
    champion = await world.answered(5)
    await world.until(lambda: len(world.log("shadow")) == 5)
    challenger = [decode_result(record.value) for record in world.log("shadow")]
    assert {answer.version for answer in champion} == {"v1"}
    assert {answer.version for answer in challenger} == {"v2"}
    assert [(answer.offset, answer.crc) for answer in champion] == [
        (answer.offset, answer.crc) for answer in challenger
    ]
