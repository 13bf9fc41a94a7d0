"""Each right of each role taken away alone, on Apache Kafka: something fails, and says which right is missing.

A user for each right that is missing, all made beforehand, logs in by a token that names it. What operators and
teachers do to one topic is the same for each of their topics, so `make test` takes one topic of each operation and
`make test-slow` the others.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Coroutine, Iterator, Sequence

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from headrace.client import Client
from headrace.client.labels import Labelled, publish_labels
from headrace.client.reviews import ReviewPublisher, ReviewReader
from headrace.commands.topics import acl_names
from headrace.config import Settings, TopicsSettings
from headrace.core.clock import SystemClock
from headrace.kafka.acls import Names, Right, Role, rights_of
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import KafkaError, NotAuthorizedError, Outgoing, TopicPartition, TopicSpec
from headrace.kafka.settings import KafkaSettings, client_options
from headrace.model.signing import signer
from headrace.trainer.gate import replay
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.store import TrainingStore
from headrace.trainer.trainer import Trainer, TrainerTopics
from headrace.trainer.training_run import TrainingTools
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace.worker.worker import Worker, WorkerTopics
from headrace_schemas.codec import encode_label, encode_request, encode_result
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, LabelledText, Review, Status
from tests.contract.security.guarded import Guarded, allow
from tests.support.models import LABELS, SumModel
from tests.support.simulation import SETTINGS
from tests.support.waiting import within

pytestmark = pytest.mark.apache

LIMIT_S = 60.0
GROUP = "billing"


class Case(msgspec.Struct, frozen=True):
    """A user with the rights of ``role`` but one, on topics of its own."""

    role: Role
    kind: str
    what: str
    operation: str
    number: int

    @property
    def user(self) -> str:
        return f"lacking-{self.number}"

    @property
    def names(self) -> Names:
        settings = Settings(topics=TopicsSettings(prefix=f"{self.user}-"))
        names = acl_names(settings, [f"{self.user}-{GROUP}"])
        return msgspec.structs.replace(
            names,
            worker_group=f"{self.user}-workers",
            trainer_groups=(f"{self.user}-trainer", f"{self.user}-trainer-election"),
            teacher_groups=(f"{self.user}-labeller", f"{self.user}-labeller-election"),
            gateway_group=f"{self.user}-gateway",
        )

    @property
    def name(self) -> str:
        """The topic or group that it may not do ``operation`` on."""
        return f"{self.user}-{self.what}"

    def rights(self) -> list[Right]:
        return [
            Right(right.resource, right.name, tuple(op for op in right.operations if not self.lacks(right, op)))
            for right in rights_of(self.role, self.names)
        ]

    def lacks(self, right: Right, operation: str) -> bool:
        return (right.resource, right.name, operation) == (self.kind, self.name, self.operation)


def cases() -> Iterator[Case]:
    template = Case(Role.WORKER, "", "", "", 0)
    number = 0
    for role in Role:
        for right in rights_of(role, template.names):
            for operation in right.operations:
                what = right.name.removeprefix(f"{template.user}-")
                yield Case(role, right.resource, what, operation, number)
                number += 1


# A trainer that may not read what teachers said learns from people alone, as it does where that topic is missing.
DOES_WITHOUT = {(Role.TRAINER, "classify.machine-labels")}
ALIKE = (Role.OPERATOR, Role.TEACHER)
"""Roles whose cases differ by the topic's name alone."""
CASES = tuple(case for case in cases() if (case.role, case.what) not in DOES_WITHOUT)
FIRST = tuple({(c.role, c.operation, c.kind, c.what if c.role not in ALIKE else ""): c for c in CASES[::-1]}.values())
OTHERS = tuple(case for case in CASES if case not in FIRST)


async def _prepare(guarded: Guarded, cases: Sequence[Case]) -> None:
    everything = AioKafkaCluster(KafkaSettings(bootstrap=guarded.plain))
    admin = AIOKafkaAdminClient(**client_options(everything.settings))
    await admin.start()
    topics = {
        right.name
        for case in cases
        for right in rights_of(case.role, case.names)
        if right.resource == "topic" and (case.role not in ALIKE or right.name == case.name)
        if case.operation != "Create"
    }
    try:
        made = await admin.create_topics([NewTopic(name, 1, 1) for name in sorted(topics)])
    finally:
        await admin.close()
    assert not [error for error in made.topic_errors if error[1]]
    await allow(guarded, {case.user: case.rights() for case in cases})
    producer = everything.producer()
    await producer.start()
    for case in cases:
        names = case.names
        if case.role is Role.WORKER:
            first = encode_request(ClassifyRequest(text="answered before"))
            await producer.send_batch(names.requests, 0, [Outgoing(first), Outgoing(b"{rubbish")])
            answer = ClassifyResult(
                offset=0, after=-1, crc=zlib.crc32(first), status=Status.OK, version="v1", label=LABELS[0], score=1.0
            )
            await producer.send_batch(names.results, 0, [Outgoing(encode_result(answer))])
        if case.role is Role.TRAINER:
            label = encode_label(LabelledText(text="a text", label="a label"))
            await producer.send_batch(names.labels, 0, [Outgoing(label, b"1"), Outgoing(b"{rubbish", b"2")])
            await producer.send_batch(names.requests, 0, [Outgoing(encode_request(ClassifyRequest(text="a text")))])
    await producer.stop()


async def worker(cluster: AioKafkaCluster, names: Names) -> None:
    """Answer what is there, for as long as it goes well."""

    async def at_once(work):
        return work()

    running = Worker(
        cluster=cluster,
        topics=WorkerTopics(names.requests, names.results, names.dead_letters, names.models, names.workers),
        settings=msgspec.structs.replace(SETTINGS, group=names.worker_group),
        shape=RequestShape(),
        model=Model("v1", LABELS, SumModel(), ()),
        clock=SystemClock(),
        offload=at_once,
        metrics=WorkerMetrics(CollectorRegistry()),
        process="one",
    )
    await running.run(asyncio.Event())


async def trainer(cluster: AioKafkaCluster, names: Names) -> None:
    """Replay requests as the gate does, then lead and begin a training, for as long as it goes well."""

    async def at_once(work):
        return work()

    async def never(*_):
        await asyncio.Event().wait()

    consumer = cluster.consumer()
    await consumer.start()
    try:
        same = dict.fromkeys(("candidate", "champion"), lambda texts: [None] * len(texts))
        await replay(consumer, names.requests, 1, decode=compile_shape(RequestShape()), offload=at_once, **same)
    finally:
        await consumer.stop()
    running = Trainer(
        name="default",
        cluster=cluster,
        topics=TrainerTopics(names.labels, names.dead_letters, names.models, names.results, names.machine_labels),
        settings=TrainerSettings(group=names.trainer_groups[0], least_rows=1, new_labels=1, settle=0.0),
        tools=TrainingTools(
            store=TrainingStore(f"memory://{names.models}", "default"),
            sign=signer(None, ()),
            trusted=(),
            launch=never,
            decide=never,
            offload=at_once,
        ),
        clock=SystemClock(),
        metrics=TrainerMetrics(CollectorRegistry()),
    )
    await running.run(asyncio.Event())


async def producer(cluster: AioKafkaCluster, names: Names) -> None:
    async with Client(cluster, requests=names.requests, results=names.results) as client:
        await client.publish("a text")


async def reader(cluster: AioKafkaCluster, names: Names) -> None:
    """Read alone, then the reviews, then in a group."""
    async with Client(cluster, requests=names.requests, results=names.results) as client:
        async with client.reader("beginning") as alone:
            await alone.read(timeout_s=0.1)
        reviews = ReviewReader(cluster.consumer(), names.reviews, results=names.results, clock=SystemClock())
        await reviews.start()
        try:
            await reviews.read(timeout_s=0.1)
        finally:
            await reviews.stop()
        async with client.group_reader(names.reader_groups[0], "beginning") as member:
            while True:
                await member.read(timeout_s=0.5)


async def labeller(cluster: AioKafkaCluster, names: Names) -> None:
    await publish_labels(cluster, names.labels, labels=[Labelled("1", "a text", "a label")])
    reviews = ReviewPublisher(cluster, names.reviews)
    try:
        await reviews.publish(
            [Review(results=names.results, partition=0, offset=0, label="a label", origin="person", reviewed_at_ms=1)]
        )
    finally:
        await reviews.stop()


async def operator(cluster: AioKafkaCluster, names: Names, case: Case) -> None:
    """What operators' commands do to one topic: apply makes, compares and grows, others read and write."""
    admin, consumer, writer, topic = cluster.admin(), cluster.consumer(), cluster.producer(), case.name
    match case.operation:
        case "Create" | "DescribeConfigs" | "Alter":
            await admin.start()
            try:
                if not await admin.describe_topics([topic]):
                    await admin.create_topic(TopicSpec(name=topic, partitions=1))
                await admin.add_partitions(topic, 2)
            finally:
                await admin.stop()
        case "Read":
            await consumer.start()
            try:
                consumer.assign([TopicPartition(topic, 0)])
                consumer.seek(TopicPartition(topic, 0), 0)
                while True:
                    await consumer.partitions_of(topic)
                    await consumer.fetch(max_records=1, timeout_s=0.5)
            finally:
                await consumer.stop()
        case "Write":
            await writer.start()
            try:
                await writer.send_batch(topic, 0, [Outgoing(b"{}")])
            finally:
                await writer.stop()


async def member(cluster: AioKafkaCluster, names: Names, case: Case) -> None:
    """Ask the group for its commits, as every member does before it reads."""
    consumer = cluster.consumer(group=case.name)
    await consumer.start()
    try:
        await consumer.committed([TopicPartition(names.results, 0)])
    finally:
        await consumer.stop()


def does(cluster: AioKafkaCluster, case: Case) -> Coroutine[None, None, None]:
    """What needs the right that ``case`` lacks."""
    if case.role in DOES:
        return DOES[case.role](cluster, case.names)
    return (member if case.kind == "group" else operator)(cluster, case.names, case)


DOES = {
    Role.WORKER: worker,
    Role.TRAINER: trainer,
    Role.PRODUCER: producer,
    Role.READER: reader,
    Role.LABELLER: labeller,
}


def ends_of(guarded: Guarded, cases: Sequence[Case]) -> dict[int, BaseException | None]:
    """How the work of each case ended, all of them at once: most of the time they wait."""

    async def end_of(case: Case) -> BaseException | None:
        cluster = AioKafkaCluster(guarded.token(case.user))
        try:
            async with within(LIMIT_S, f"what a {case.role} does"):
                await does(cluster, case)
        except (KafkaError, TimeoutError) as error:
            return error
        return None

    async def all_of_them() -> dict[int, BaseException | None]:
        await _prepare(guarded, cases)
        found = await asyncio.gather(*map(end_of, cases))
        return {case.number: error for case, error in zip(cases, found, strict=True)}

    return asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def ends(guarded: Guarded) -> dict[int, BaseException | None]:
    return ends_of(guarded, FIRST)


@pytest.fixture(scope="module")
def other_ends(guarded: Guarded) -> dict[int, BaseException | None]:
    return ends_of(guarded, OTHERS)


def named(case: Case) -> str:
    return f"{case.role} without {case.operation} on {case.what}"


@pytest.mark.parametrize("case", FIRST, ids=named)
def test_a_right_that_is_missing_ends_the_work_and_is_named(ends, case):
    assert_missing_right_is_named(ends[case.number], case)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS, ids=named)
def test_a_right_that_is_missing_on_any_other_topic_ends_the_work_and_is_named(other_ends, case):
    assert_missing_right_is_named(other_ends[case.number], case)


def assert_missing_right_is_named(end: BaseException | None, case: Case) -> None:
    # Whoever may neither read nor write a topic does not even get to know of it, and who may write to none gets no
    # producer.
    right = f"(({case.operation}|Describe) on the {case.kind} {case.name}|Write on any topic)"
    assert isinstance(end, NotAuthorizedError), end
    assert re.search(f"no right to {right}.*headrace topics acl", str(end)), end
