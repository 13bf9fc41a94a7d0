"""The real trainer on Apache Kafka: killed in the middle of a training, and the next one goes on with it."""

from __future__ import annotations

import random
import re
import uuid
from pathlib import Path

import msgspec
import pytest

from headrace.client.dead_letters import read_dead_letters
from headrace.core.fields import Secret
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.learning.data.split import Splitting
from headrace.model.artifact import load
from headrace.process.children import ProgramError
from headrace.registry.compacted_topics import ModelsLog
from headrace_load.processes import headrace, running
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText, TrainingState
from tests.support.waiting import until, within

LIMIT_S = 90.0
CLASSES = {
    "sport": "goal match team player league score",
    "money": "bank rate market share profit stock",
    "sky": "rain cloud wind storm snow frost",
}


def labels(count: int) -> list[Outgoing]:
    rng = random.Random(1)
    made = []
    for number in range(count):
        label = rng.choice(list(CLASSES))
        words = rng.choices(CLASSES[label].split(), k=4) + rng.choices(["the", "a", "of", "in", "to"], k=4)
        value = encode_label(LabelledText(text=" ".join(words), label=label))
        made.append(Outgoing(value, f"id-{number}".encode()))
    return made


@pytest.mark.apache
async def test_a_killed_trainers_training_ends_as_a_champion_by_the_next_trainer(apache_bootstrap, tmp_path: Path):
    prefix = f"trainer-{uuid.uuid4().hex[:8]}-"
    sets = {
        "topics.prefix": prefix,
        "trainer.group": f"{prefix}trainer",
        "trainer.store": str(tmp_path / "store"),
        "trainer.epochs": "2",
        "trainer.settle": "0",
        "admin.port": "0",
    }
    at = (
        "--bootstrap",
        apache_bootstrap,
        *(part for key, value in sets.items() for part in ("--set", f"{key}={value}")),
    )
    await headrace(*at, "topics", "apply")
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    producer = cluster.producer()
    await producer.start()
    await producer.send_many(f"{prefix}classify.labels", [*labels(300), Outgoing(b"{", b"rubbish")])
    await producer.stop()

    log = tmp_path / "trainer.log"
    async with running(*at, "trainer", log=log) as first:
        await until(lambda: re.search(r"training\.launched", log.read_text()), LIMIT_S)
        await first.kill()
    async with within(LIMIT_S, "the end of the training"):
        said = await headrace(*at, "trainer", "--once")
    models = ModelsLog(cluster, f"{prefix}classify.models")
    await models.start()
    await models.stop()
    training, champion = models.trainings["default"], models.resolve("default", "champion")
    begun = re.search(r"training\.begun .*training=(\d+)", log.read_text())
    assert (training.state, training.id) == (TrainingState.DONE, begun[1])
    assert "training.resumed" in said
    assert champion.version == training.version
    assert champion.lineage.offsets == training.offsets
    assert sum(one.end - one.first for one in training.offsets) == 301
    assert load(champion.uri, champion.sha256, champion.size).version == champion.version
    letters = [found.letter async for found in read_dead_letters(cluster, f"{prefix}classify.dead-letters")]
    assert [(letter.key, letter.error) for letter in letters] == [(b"rubbish", "bad-bytes")]


@pytest.mark.slow  # test_planted_labels.py and test_distributed_holdout.py have its parts
@pytest.mark.apache
async def test_labels_are_divided_by_a_secret_key_and_rows_on_a_topic_of_their_own_decide(
    apache_bootstrap, tmp_path: Path
):
    prefix, key = f"keyed-{uuid.uuid4().hex[:8]}-", "a key that no labeller has"
    (tmp_path / "split.key").write_text(f"{key}\n")
    sets = {
        "topics.prefix": prefix,
        "trainer.group": f"{prefix}trainer",
        "trainer.store": str(tmp_path / "store"),
        "trainer.split_key_file": str(tmp_path / "split.key"),
        "trainer.epochs": "2",
        "trainer.settle": "0",
        "gate.holdout": f"topic:{prefix}holdout",
        "admin.port": "0",
    }

    def at(**other: str) -> tuple[str, ...]:
        given = {**sets, **other}
        return (
            "--bootstrap",
            apache_bootstrap,
            *(part for name, value in given.items() for part in ("--set", f"{name}={value}")),
        )

    await headrace(*at(), "topics", "apply")
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    admin, producer = cluster.admin(), cluster.producer()
    await admin.start()
    await admin.create_topic(TopicSpec(name=f"{prefix}holdout", partitions=2, config={"cleanup.policy": "compact"}))
    await admin.stop()
    await producer.start()
    made = labels(360)
    await producer.send_many(f"{prefix}classify.labels", made)
    await producer.send_many(f"{prefix}holdout", made[:60])
    await producer.stop()

    async with within(LIMIT_S, "the end of the training"):
        said = await headrace(*at(), "trainer", "--once")
    models = ModelsLog(cluster, f"{prefix}classify.models")
    await models.start()
    await models.stop()
    champion = models.resolve("default", "champion")
    verdict = models.verdicts["default", champion.version]
    splitting = Splitting(Secret(key))
    assert champion.lineage.split == splitting.id
    assert champion.lineage.dropped["holdout"] == 60
    assert "60 rows of gate.holdout" in verdict.reason
    (agreement,) = [one for one in verdict.checks if one.name == "agreement"]
    assert "of the 60 rows of gate.holdout are answered as by the fp32 original" in agreement.detail
    assert models.aliases["default", "baseline"].version == champion.version
    assert "split.unkeyed" not in said
    told = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert splitting.id.encode() in told
    for written in (told, said.encode(), msgspec.json.encode([champion, verdict])):
        assert key.encode() not in written

    other = tmp_path / "other.key"
    other.write_text("another key, just as long\n")
    with pytest.raises(ProgramError, match=r"can't be trained again here: its rows were divided by the split"):
        await headrace(*at(**{"trainer.split_key_file": str(other)}), "models", "reproduce", "champion")
