"""Faults of a real worker, trainer and labeller that fire their alerts: they run on the twin, and their metrics go to
Prometheus's rules. docs/runbook.md has the table of all alerts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import BrokerUnavailableError, TopicPartition, TopicSpec
from headrace.labeller.teachers.interface import TeacherError
from headrace.model.errors import ArtifactError
from headrace.process.admin import admin_server
from headrace.trainer.certificate import CascadeWatch
from headrace.trainer.metrics import TrainerMetrics
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace_schemas.headers import TIMEOUT_MS
from headrace_schemas.records import Profile, TrainingState
from tests.support.alerts import NEEDS_PROMTOOL, QUIET_M, UNDER_M, Watched, fire, fired
from tests.support.memory_kafka import MemoryCluster
from tests.support.models import LABELS, SumModel, label_of
from tests.support.simulation import TOPICS
from tests.support.teachers import PlainTeacher
from tests.support.trainer_cluster import TrainerCluster
from tests.support.trainer_cluster import story as trainer_story
from tests.support.waiting import until
from tests.support.worker_cluster import WorkerCluster, story
from tests.unit.labeller import test_labeller as labellers
from tests.unit.trainer import test_certificate as certificates

pytestmark = NEEDS_PROMTOOL


class Worker(Watched):
    """A worker's metrics."""

    def __init__(self, instance: str = "") -> None:
        super().__init__(CollectorRegistry(), instance=instance)
        self.metrics = WorkerMetrics(self.registry)


def played(play: Callable[[WorkerCluster, Worker], Any]) -> Worker:
    watched = Worker()

    @story
    async def run(world: WorkerCluster) -> None:
        await play(world, watched)

    run()
    return watched


def test_answers_that_are_refused_by_kafka(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics, watchdog=600.0)
        await world.publish("before")
        await world.answered(1)
        await world.until(lambda: watched.value("headrace_lag_records", partition="0") == 0)
        watched.quiet()

        async def refused(_: str, name: str) -> None:
            if name == "produce.before":
                raise BrokerUnavailableError("NOT_ENOUGH_REPLICAS")

        world.fault = refused
        # It waits in a batch, and no other one behind it.
        await world.publish("waits")
        await world.until(lambda: (watched.value("headrace_lag_seconds", partition="0") or 0) > 30, 300)
        watched.under()

    fired(played(play), tmp_path, "HeadraceNoProgress", "HeadraceRequestsLate", "HeadraceRequestsLateSlowly")


def test_a_broker_that_answers_nothing(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics, watchdog=600.0)
        await world.running()
        await world.until(lambda: watched.value("headrace_broker_connected") == 1)
        watched.quiet()

        async def away(_: str, __: str) -> None:
            raise BrokerUnavailableError("nobody answers")

        world.fault = away
        await world.until(lambda: watched.value("headrace_broker_connected") == 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceBrokerAway")


def test_requests_that_are_rubbish_or_come_too_late(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics)
        await world.publish("before")
        await world.answered(1)
        await world.publish_value(b"{")
        await world.publish("late", headers=((TIMEOUT_MS, b"1000"),), timestamp_ms=world.clock.now_ms() - 60_000)
        await world.answered(3)
        await world.until(lambda: watched.value("headrace_answers_total", status="expired") == 1)
        watched.under()

    fired(played(play), tmp_path, "HeadraceDeadLetters", "HeadraceAnswersExpired")


def test_retention_in_front_of_a_worker(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics)
        await world.publish("before")
        await world.answered(1)
        await world.stop("w0")
        watched.quiet()
        await world.publish(*"abcdef")
        world.cluster.log(TopicPartition(TOPICS.requests, 0)).truncate_before(4)
        world.start(metrics=watched.metrics)
        await world.until(lambda: (watched.value("headrace_requests_lost_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceRequestsLost")


def test_a_requests_topic_that_grew_alone(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics, watchdog=20.0)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        await world.cluster.admin().add_partitions(TOPICS.requests, 3)
        await world.until(lambda: watched.value("headrace_partitions_unanswerable") == 2)
        watched.under()

    fired(played(play), tmp_path, "HeadracePartitionsUnanswerable")


def test_a_model_that_fails_on_its_canaries(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        broken = False
        backend = SumModel(poison=lambda _: broken)
        canaries = [(b"canary", label_of("canary"))]
        world.start(metrics=watched.metrics, backend=backend, canaries=canaries, breaker_threshold=2)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        broken = True
        await world.publish("one", "two", "three")
        await world.until(lambda: watched.value("headrace_breaker_open") == 1)
        watched.under()

    fired(played(play), tmp_path, "HeadraceBreakerOpen")


def test_a_version_that_can_not_be_loaded(tmp_path: Path) -> None:
    async def load(record: Any) -> Model:
        if record.version == "v2":
            raise ArtifactError("v2 is gone")
        return Model(record.version, LABELS, SumModel())

    async def play(world: WorkerCluster, watched: Worker) -> None:
        await world.publish_version("v1")
        await world.point_alias("v1")
        world.start(metrics=watched.metrics, answering=load)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        await world.publish_version("v2")
        await world.point_alias("v2", previous="v1")
        await world.until(lambda: (watched.value("headrace_model_load_failures_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceVersionNotLoaded")


def test_a_member_that_loses_its_coordinator(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        world.start(metrics=watched.metrics)
        await world.running()
        watched.quiet()
        world.cluster.node("w0").cut_coordinator()
        await world.until(lambda: (watched.value("headrace_leases_lost_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceMembershipUnsteady")


def test_workers_of_which_one_can_not_load_the_version_that_the_other_answers_by(tmp_path: Path) -> None:
    workers = [Worker("w0"), Worker("w1")]

    async def load(record: Any) -> Model:
        return Model(record.version, LABELS, SumModel())

    async def fails(record: Any) -> Model:
        if record.version == "v2":
            raise ArtifactError("v2 can't be read from here")
        return await load(record)

    @story
    async def run(world: WorkerCluster) -> None:
        await world.publish_version("v1")
        await world.point_alias("v1")
        for number, (worker, answering) in enumerate(zip(workers, (load, fails), strict=True)):
            world.start(f"w{number}", metrics=worker.metrics, answering=answering)
        await world.until(lambda: all(one.value("headrace_model_info", version="v1") == 1 for one in workers))
        for worker in workers:
            worker.quiet()
        await world.publish_version("v2")
        await world.point_alias("v2", previous="v1")
        await world.until(lambda: workers[0].value("headrace_model_info", version="v2") == 1)
        await world.until(lambda: (workers[1].value("headrace_model_load_failures_total") or 0) > 0)
        for worker in workers:
            worker.under()

    run()
    fired(workers, tmp_path, "HeadraceVersionsDiffer", "HeadraceVersionNotLoaded")


def test_answers_that_are_no_longer_those_of_the_test_rows(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Worker) -> None:
        profile = Profile(labels=(1 / 3, 1 / 3, 1 / 3), confidence=(0.0,) * 9 + (1.0,))
        model = Model("v1", LABELS, SumModel(score=1.0), profile=profile)
        world.start(answering=model, metrics=watched.metrics, max_batch=512, waiting_per_partition=512)
        await world.publish(*(f"text {number}" for number in range(800)))
        await world.answered(800)
        await world.until(lambda: watched.value("headrace_drift_psi", of="labels") is not None)
        watched.quiet()
        await world.publish(*(["text"] * 800))
        await world.answered(1600)
        watched.under()

    # An hour has to pass.
    fired(played(play), tmp_path, "HeadraceDrift", under_m=90)


async def test_a_worker_whose_admin_port_nobody_answers_at(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    served = admin_server("127.0.0.1", 0, health=lambda: None, ready=lambda: None, registry=registry)
    async with served as port:
        before = await up(port)
    after = await up(port)
    assert (before, after) == (1, 0)
    values = f"{before}x{QUIET_M} {after}x{UNDER_M}"
    fire([{"series": 'up{job="headrace-worker", instance="w0"}', "values": values}], tmp_path, "HeadraceWorkersAbsent")


async def up(port: int) -> int:
    """What Prometheus writes of a target: whether it could be scraped."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return int(b" 200 " in status)


class Learning(Watched):
    """A trainer's metrics, which it makes anew when it starts."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), job="headrace-trainer")

    def of(self, world: TrainerCluster) -> None:
        self.registry = world.registry


def learnt(play: Callable[[TrainerCluster, Learning], Any]) -> Learning:
    watched = Learning()

    @trainer_story
    async def run(world: TrainerCluster) -> None:
        await play(world, watched)

    run()
    return watched


def test_a_trainer_that_is_cut_off_from_its_coordinator(tmp_path: Path) -> None:
    async def play(world: TrainerCluster, watched: Learning) -> None:
        world.start()
        watched.of(world)
        await world.until(lambda: world.metric("leads") == 1)
        watched.quiet()
        world.cluster.node("t0").cut_coordinator()
        await world.until(lambda: world.metric("leads") == 0)
        watched.under()

    fired(learnt(play), tmp_path, "HeadraceNoTrainerLeads")


def test_trainings_that_fail(tmp_path: Path) -> None:
    async def play(world: TrainerCluster, watched: Learning) -> None:
        world.start()
        watched.of(world)
        await world.until(lambda: world.metric("leads") == 1)
        watched.quiet()
        world.fail = UserError("the ranks were short of memory")
        await world.label("a", "b", "c")
        await world.trained(2, TrainingState.FAILED)
        watched.under()

    fired(learnt(play), tmp_path, "HeadraceTrainingsFail")


def test_labels_that_can_not_be_used(tmp_path: Path) -> None:
    async def play(world: TrainerCluster, watched: Learning) -> None:
        world.start()
        watched.of(world)
        await world.label(*(f"good {number}" for number in range(9)))
        await world.trained()
        watched.quiet()
        await world.put("bad", b"{")
        await world.until(world.letters)
        await world.until(lambda: world.metric("labels_read_total") == 10)
        watched.under()

    fired(learnt(play), tmp_path, "HeadraceLabelsRefused")


async def test_a_promise_that_the_random_slice_shows_broken(tmp_path: Path) -> None:
    cluster, watched = MemoryCluster(SystemClock()), Learning()
    cluster.create_topic(TopicSpec(name=certificates.LABELS, partitions=1))

    async def offload(work: Callable[[], Any]) -> Any:
        return work()

    watch = CascadeWatch(
        cluster,
        labels=certificates.LABELS,
        max_text_bytes=1000,
        open_version=lambda _: certificates.ask,
        offload=offload,
        clock=SystemClock(),
        metrics=TrainerMetrics(watched.registry),
    )
    certificate = certificates.certified()
    watch.follow(certificates.VERSION, certificate, certificate.threshold)
    running = asyncio.create_task(watch.run())

    def bound(side: str) -> float:
        return watched.value("headrace_cascade_disagreement_bound", side=side) or 0.0

    try:
        await certificates.published(cluster, [certificates.label(f"text 900 right {at}") for at in range(100)])
        await until(lambda: 0 < bound("upper") < 0.06, 60)
        watched.quiet()
        wrong = [certificates.label(f"text 900 wrong {at}", name="no") for at in range(30)]
        await certificates.published(cluster, wrong, first=1000)
        await until(lambda: watch.broken is not None, 60)
        watched.under()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    fired(watched, tmp_path, "HeadraceCascadeBoundBroken")


@asynccontextmanager
async def labelling(teacher: PlainTeacher, **settings: Any) -> AsyncIterator[tuple[labellers.Site, Watched]]:
    """A labeller that leads, and its metrics."""
    site = labellers.Site()
    for number in range(20):
        await site.person(str(number), f"gold {number} money", "refund")
    labeller = site.labeller(teacher, msgspec.structs.replace(labellers.SETTINGS, **settings))
    watched = Watched(site.registry, job="headrace-labeller")
    async with labellers.running(labeller):
        await labellers.asks(labeller)
        await until(lambda: site.metric("leads") == 1)
        watched.quiet()
        yield site, watched


async def test_a_teacher_that_says_something_else_than_people(tmp_path: Path) -> None:
    teacher = PlainTeacher(lambda _: "delivery")
    async with labelling(teacher, gold=1.0, batch=4) as (site, watched):
        for number in range(40):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("stopped") == 1)
        watched.under()
    fired(watched, tmp_path, "HeadraceTeacherNotBelieved")


async def test_a_budget_that_is_spent(tmp_path: Path) -> None:
    async with labelling(PlainTeacher(), day_texts=3, batch=1) as (site, watched):
        for number in range(6):
            await site.answer(f"text {number}")
        await until(lambda: site.metric("budget_exhausted") == 1)
        watched.under()
    fired(watched, tmp_path, "HeadraceTeacherBudgetSpent")


async def test_a_teacher_that_is_away(tmp_path: Path) -> None:
    def away() -> None:
        raise TeacherError("nobody listens at the endpoint")

    async with labelling(PlainTeacher(before=away), tries=2) as (site, watched):
        await site.answer("a text")
        await until(lambda: site.metric("texts_left_total", why="teacher") == 1)
        watched.under()
    fired(watched, tmp_path, "HeadraceTeacherDown")
