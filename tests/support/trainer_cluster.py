"""A twin with trainers on a turned clock; their ranks are a function that writes a small real artifact."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from headrace.kafka.dead_letters import keep_whole
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.learning.distributed.job import Job, Outcome, TopicSource
from headrace.learning.evaluate import compare
from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from headrace.model.signing import Seals, Sign, signer
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.store import TrainingStore
from headrace.trainer.trainer import Trainer, TrainerTopics
from headrace.trainer.training_run import TrainingTools
from headrace_schemas.codec import decode_models_record, encode_label, encode_machine_label, encode_models_record
from headrace_schemas.dead_letters import dead_letter_from_record
from headrace_schemas.records import (
    DeadLetter,
    LabelledText,
    Lineage,
    MachineLabel,
    MachineLabelsRecord,
    ModelAlias,
    ModelVersion,
    Profile,
    Training,
    TrainingState,
    Verdict,
)
from headrace_schemas.topics import machine_labels_key, models_key
from tests.support.memory_kafka import MemoryCluster, MemoryTimings
from tests.support.networks import random_network
from tests.support.turned_loop import TurnedClock
from tests.support.turned_tests import TwinCluster, after_a_moment, on_turned_clock

TOPICS = TrainerTopics(
    labels="labels", dead_letters="dead-letters", models="models", results="results", machine_labels="machine-labels"
)
NAME = "default"
SETTINGS = TrainerSettings(least_rows=3, new_labels=3, growth=None, settle=1.0, retry=60.0)
TIMES = MemoryTimings(session_timeout_s=6.0, heartbeat_interval_s=0.5, rebalance_timeout_s=10.0)
NETWORK = quantize(random_network(1))

stores = itertools.count()


class TrainerCluster(TwinCluster):
    """Trainers are named. ``launched`` are the jobs that ranks were started for, ``ended`` those that came to an end.

    A training takes ``train_s`` seconds; ``fail`` is raised at its end. ``promoted`` is what the gate says, ``better``
    whether the candidate is to be the baseline. ``sign``, ``trusted`` and ``seals`` are those of trainers started from
    then on.
    """

    patience_s = 300.0

    def __init__(self, partitions: int = 2) -> None:
        self.clock = TurnedClock()
        self.cluster = MemoryCluster(self.clock, timings=TIMES)
        for name in (TOPICS.labels, TOPICS.dead_letters, TOPICS.results):
            self.cluster.create_topic(TopicSpec(name=name, partitions=partitions))
        self.cluster.create_topic(TopicSpec(name=TOPICS.models, partitions=1))
        self.producer = self.cluster.producer()
        self.store = f"memory://trainer-{next(stores)}"
        self.sign: Sign = signer(None, ())
        self.trusted: tuple[str, ...] = ()
        self.seals = Seals()
        self.keep = keep_whole
        self.trainers: dict[str, Trainer] = {}
        self.runs: dict[str, asyncio.Task[Training | None]] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.registry = CollectorRegistry()
        self.launched: list[Job] = []
        self.ended: list[Job] = []
        self.compared: list[str | None] = []
        self.train_s = 5.0
        self.fail: Exception | None = None
        self.promoted = True
        self.better = False

    def start(self, name: str = "t0", *, once: bool = False, **settings: Any) -> asyncio.Task[Training | None]:
        self.registry = CollectorRegistry()
        trainer = Trainer(
            name=NAME,
            cluster=self.cluster.node(name),
            topics=TOPICS,
            settings=msgspec.structs.replace(SETTINGS, **settings),
            tools=TrainingTools(
                store=TrainingStore(self.store, NAME, seals=self.seals),
                launch=self.launch,
                decide=self.decide,
                sign=self.sign,
                trusted=self.trusted,
                offload=after_a_moment,
            ),
            clock=self.clock,
            metrics=TrainerMetrics(self.registry),
            once=once,
            keep=self.keep,
        )
        self.trainers[name] = trainer
        self.stops[name] = asyncio.Event()
        self.runs[name] = asyncio.create_task(trainer.run(self.stops[name]))
        return self.runs[name]

    async def launch(self, job: Job) -> Outcome:
        self.launched.append(job)
        await self.clock.sleep(self.train_s)
        if self.fail is not None:
            raise self.fail
        assert isinstance(job.source, TopicSource)
        lineage = Lineage(source=job.source.topic, digest="d", rows=3, offsets=job.source.ranges)
        shares = (1.0, 0.0, 0.0)
        about = About(
            created_at_ms=job.created_at_ms,
            parent=job.parent,
            lineage=lineage,
            profile=Profile(shares, (0.0,) * 9 + (1.0,)),
        )
        artifact = assemble(NETWORK, about)
        uri = f"{job.out}/{artifact.version}.safetensors"
        save(artifact, uri)
        self.ended.append(job)
        report = compare(["a"], ["a"])
        return Outcome(
            uri=uri,
            version=artifact.version,
            sha256=artifact.sha256,
            size=artifact.size,
            float_size=10 * artifact.size,
            lineage=lineage,
            report=report,
            float_report=report,
            truth=("a",),
            answers=("a",),
            float_answers=("a",),
            latency_us=1.0,
            epochs=1,
            seconds=self.train_s,
        )

    async def decide(self, candidate: ModelVersion, champion: ModelVersion | None, outcome: Outcome) -> Verdict:
        assert outcome.version == candidate.version
        compared = None if champion is None else champion.version
        self.compared.append(compared)
        return Verdict(
            name=candidate.name,
            version=candidate.version,
            promoted=self.promoted,
            reason="as told",
            decided_at_ms=self.clock.now_ms(),
            champion=compared,
            baseline=candidate.version if self.promoted and (self.better or compared is None) else compared,
        )

    async def label(self, *ids: str, text: str | None = None, label: str = "pos", partition: int = 0) -> None:
        for id_ in ids:
            value = encode_label(LabelledText(text=text or f"text {id_}", label=label))
            await self.put(id_, value, partition=partition)

    def add_machine_topic(self, partitions: int = 2) -> None:
        self.cluster.create_topic(TopicSpec(name=TOPICS.machine_labels, partitions=partitions))

    async def teach(self, *texts: str, label: str = "pos", teacher: str = "encoder-1", partition: int = 0) -> None:
        """Write what a teacher says of texts."""
        for text in texts:
            await self.put_machine(MachineLabel(text=text, teacher=teacher, label=label, labelled_at_ms=0), partition)

    async def put_machine(self, record: MachineLabelsRecord, partition: int = 0) -> None:
        made = Outgoing(encode_machine_label(record), machine_labels_key(record))
        await self.producer.send_batch(TOPICS.machine_labels, partition, [made])

    async def put(self, id_: str | None, value: bytes | None, *, partition: int = 0) -> None:
        key = None if id_ is None else id_.encode()
        await self.producer.send_batch(TOPICS.labels, partition, [Outgoing(value, key)])

    async def decree(self, *records: Any) -> None:
        """Write to the models topic, as an operator's command does."""
        made = [Outgoing(encode_models_record(record), models_key(record)) for record in records]
        await self.producer.send_batch(TOPICS.models, 0, made)

    async def forget(self, *records: Any) -> None:
        """Take records of the models topic back, by tombstones."""
        await self.producer.send_batch(TOPICS.models, 0, [Outgoing(None, models_key(record)) for record in records])

    def label_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(TOPICS.labels, p) for p in sorted(self.cluster.partition_numbers(TOPICS.labels))]

    def models(self) -> list[Any]:
        return [decode_models_record(record.value) for record in self.cluster.log(TopicPartition("models", 0)).records]

    def trainings(self, state: TrainingState | None = None) -> list[Training]:
        found = [record for record in self.models() if isinstance(record, Training)]
        return [training for training in found if state in (None, training.state)]

    def alias(self, alias: str = "champion") -> ModelAlias | None:
        moves = [record for record in self.models() if isinstance(record, ModelAlias) and record.alias == alias]
        return moves[-1] if moves else None

    def letters(self) -> list[DeadLetter]:
        logs = [self.cluster.log(TopicPartition(TOPICS.dead_letters, p)).records for p in (0, 1)]
        return [dead_letter_from_record(record.key, record.value, record.headers) for log in logs for record in log]

    async def trained(self, count: int = 1, state: TrainingState = TrainingState.DONE) -> list[Training]:
        await self.until(lambda: len(self.trainings(state)) >= count)
        return self.trainings(state)

    async def stop(self, name: str = "t0") -> None:
        self.stops[name].set()
        await asyncio.wait_for(self.runs.pop(name), 60)

    def kill(self, name: str = "t0") -> None:
        self.cluster.node(name).kill()
        self.runs.pop(name).cancel()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"headrace_trainer_{name}", labels)


story = on_turned_clock(TrainerCluster)
