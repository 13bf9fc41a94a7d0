"""Trainings as real processes: labels from a broker, a rank that is killed, an error, a cancellation."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.learning.data.labels import read_partitions
from headrace.learning.distributed.job import FileSource, Job, Outcome, TopicSource
from headrace.learning.distributed.launch import Nodes, TrainingFailedError, launch
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, Recipe
from headrace.model.places import places_of
from headrace.process.ports import free_ports
from headrace.security.private_folder import PrivateFolder
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText, OffsetRange
from tests.support.waiting import until

PARTITIONS = 3
RANKS = 2
SIGNALS = {"praise": "good", "blame": "bad", "question": "why"}
RECIPE = Recipe(convolution=ConvolutionRecipe(dimensions=8, filters=8, epochs=8, batch=16, least_steps=1), patience=8)


def labels(rows: int) -> list[Outgoing]:
    randomness = random.Random(7)
    records = []
    for number in range(rows):
        label, word = randomness.choice(list(SIGNALS.items()))
        words = [*randomness.choices([f"w{n}" for n in range(40)], k=6), word]
        randomness.shuffle(words)
        value = encode_label(LabelledText(text=" ".join(words), label=label))
        records.append(Outgoing(value, f"id-{number}".encode()))
    return records


@pytest.fixture
async def source(embedded_bootstrap) -> TopicSource:
    """A topic of 300 labels, one of which is erased."""
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=embedded_bootstrap, idempotent=False))
    topic = f"labels-{uuid.uuid4().hex[:8]}"
    admin, producer, consumer = cluster.admin(), cluster.producer(), cluster.consumer(read_committed=True)
    for client in (admin, producer, consumer):
        await client.start()
    try:
        await admin.create_topic(TopicSpec(name=topic, partitions=PARTITIONS))
        await producer.send_many(topic, [*labels(301), Outgoing(None, b"id-0")])
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
    finally:
        for client in (admin, producer, consumer):
            await client.stop()
    ranges = tuple(OffsetRange(name.partition, 0, end) for name, end in sorted(ends.items()))
    return TopicSource(topic=topic, ranges=ranges, max_text_bytes=1000)


class Run:
    """One training, and what its ranks said."""

    def __init__(self, folder: Path, source: TopicSource | FileSource, bootstrap: str) -> None:
        self.said: list[Mapping[str, Any]] = []
        self.folder = folder
        self.store = folder
        self.program = ("headrace", "--set", f"store.allowed={folder}", "--bootstrap", bootstrap)
        self.job = Job(
            id=f"run-{uuid.uuid4().hex[:8]}",
            source=source,
            recipe=RECIPE,
            checkpoints=str(folder / "checkpoints"),
            out=str(folder / "artifacts"),
        )

    async def outcome(self, *, at_epoch: Callable[[], None] = lambda: None, nodes: Nodes | None = None) -> Outcome:
        def take(event: Mapping[str, Any]) -> None:
            self.said.append(event)
            if event["event"] == "training.epoch" and event["number"] == 1:
                at_epoch()

        return await launch(
            self.job,
            ranks=RANKS if nodes is None else 1,
            nodes=nodes,
            program=self.program,
            environ=os.environ,
            folder=PrivateFolder(self.folder),
            places=places_of((str(self.store),)),
            on_event=take,
        )

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [event for event in self.said if event["event"] == name]

    def pids(self) -> list[int]:
        return [event["pid"] for event in self.events("rank.started")]


async def test_a_killed_rank_goes_on_from_the_last_checkpoint_to_the_same_weights(source, embedded_bootstrap, tmp_path):
    whole = Run(tmp_path / "whole", source, embedded_bootstrap)
    expected = await whole.outcome()
    assert (expected.lineage.rows + len(expected.truth), expected.lineage.dropped) == (300, {"erased": 1})
    assert expected.lineage.offsets == source.ranges

    broken = Run(tmp_path / "broken", source, embedded_bootstrap)
    outcome = await broken.outcome(at_epoch=lambda: os.kill(broken.pids()[-1], signal.SIGKILL))

    assert len(broken.pids()) == 2 * RANKS
    epochs = [event["number"] for event in broken.events("training.epoch")]
    assert epochs == sorted(set(epochs)), "no epoch was trained twice"
    assert outcome.sha256 == expected.sha256


@pytest.mark.apache
async def test_an_aborted_transaction_is_not_read_and_its_marker_ends_the_range(apache_bootstrap):
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    topic = f"labels-{uuid.uuid4().hex[:8]}"
    admin, consumer = cluster.admin(), cluster.consumer(read_committed=True)
    producer = AIOKafkaProducer(bootstrap_servers=apache_bootstrap, transactional_id=topic)
    for client in (admin, consumer, producer):
        await client.start()
    try:
        await admin.create_topic(TopicSpec(name=topic, partitions=1, config={"cleanup.policy": "compact"}))
        for end in (producer.commit_transaction, producer.abort_transaction):
            await producer.begin_transaction()
            value = encode_label(LabelledText(text=end.__name__, label="a"))
            await producer.send_and_wait(topic, value, key=b"id", partition=0)
            await end()
        [range_end] = (await consumer.end_offsets([TopicPartition(topic, 0)])).values()
    finally:
        for client in (producer, consumer, admin):
            await client.stop()

    source = TopicSource(topic=topic, ranges=(OffsetRange(0, 0, range_end),), max_text_bytes=1000)
    [record] = (await read_partitions(cluster, source, [0])).records
    assert (range_end, record.offset, record.content.text) == (4, 0, "commit_transaction")


@pytest.mark.slow  # an earlier one kills a rank on one machine
async def test_machines_meet_at_one_address_and_go_on_together_after_the_rank_of_one_was_killed(tmp_path):
    """Two launchers, as on two machines; both at 127.0.0.1, which is the one address that they listen on."""
    data = tmp_path / "data.jsonl"
    lines = (msgspec.json.decode(record.value, type=LabelledText) for record in labels(300))
    data.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    port = free_ports(1)[0]
    machines = [Run(tmp_path / "machines", FileSource(data=str(data)), "127.0.0.1:1")]
    machines.append(copy(machines[0]))
    machines[1].said, machines[1].folder = [], tmp_path / "second"
    listening: list[tuple[str, int]] = []

    def look_and_kill() -> None:
        pids = [machine.pids()[0] for machine in machines]
        for pid in pids:
            sockets = psutil.Process(pid).net_connections(kind="inet")
            listening.extend((s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN)
        os.kill(pids[1], signal.SIGKILL)

    async with asyncio.TaskGroup() as group:
        outcomes = [
            group.create_task(
                machine.outcome(
                    at_epoch=look_and_kill,
                    nodes=Nodes(count=2, number=number, endpoint=f"127.0.0.1:{port}", address="127.0.0.1"),
                )
            )
            for number, machine in enumerate(machines)
        ]

    assert outcomes[0].result() == outcomes[1].result()
    epochs = [event["number"] for event in machines[0].events("training.epoch")]
    assert epochs == sorted(set(epochs)), "no epoch was trained twice"
    assert [len(machine.pids()) for machine in machines] == [2, 2]
    assert {address for address, _ in listening} == {"127.0.0.1"}
    # The store's port, and one of gloo's for each rank.
    assert len(listening) == 3
    assert port in [number for _, number in listening]


async def test_an_error_that_lasts_ends_the_training_at_once_in_the_words_of_the_rank(tmp_path):
    run = Run(tmp_path, FileSource(data=str(tmp_path / "absent.csv")), "127.0.0.1:1")
    with pytest.raises(TrainingFailedError, match=r"failed: .*absent\.csv: can't be read: No such file"):
        await run.outcome()
    # One may be ended before it says that it started; none is started again.
    assert len(run.pids()) <= RANKS


async def test_a_cancelled_training_leaves_no_rank_behind(source, embedded_bootstrap, tmp_path):
    run = Run(tmp_path, source, embedded_bootstrap)
    task = asyncio.create_task(run.outcome())
    await until(lambda: len(run.pids()) == RANKS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not [pid for pid in run.pids() if Path(f"/proc/{pid}").exists()])
