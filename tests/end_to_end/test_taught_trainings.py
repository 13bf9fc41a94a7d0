"""The real trainer on labels of people and of a teacher: ranks agree, reproduce agrees, and an erasure reaches both."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing
from headrace.kafka.settings import KafkaSettings
from headrace.registry.compacted_topics import ModelsLog
from headrace_load.processes import headrace
from headrace_schemas.codec import decode_label, encode_machine_label
from headrace_schemas.records import MachineLabel, ModelVersion, Score
from headrace_schemas.topics import machine_labels_key
from tests.end_to_end.test_trainer import labels
from tests.support.waiting import within

LIMIT_S = 120.0
HUMAN = 120

pytestmark = pytest.mark.slow


def taught(made: list[Outgoing]) -> list[Outgoing]:
    """What a teacher says of the texts of labels, which it is right about."""
    records = []
    for one in made:
        told = decode_label(one.value)
        assert told is not None
        label = MachineLabel(
            text=told.text, teacher="encoder-1", label=told.label, scores=(Score(told.label, 0.9),), labelled_at_ms=0
        )
        records.append(Outgoing(encode_machine_label(label), machine_labels_key(label)))
    return records


class Place:
    """Topics of their own on the broker."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.prefix = f"taught-{uuid.uuid4().hex[:8]}-"
        self.cluster = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap, idempotent=False))
        sets = {
            "topics.prefix": self.prefix,
            "kafka.idempotent": "false",
            "trainer.group": f"{self.prefix}trainer",
            "trainer.store": str(folder / "store"),
            "trainer.epochs": "2",
            "trainer.settle": "0",
            "trainer.budget_points": "0",
            "gate.replay": "0",
            "admin.port": "0",
        }
        self.at = (
            "--bootstrap",
            bootstrap,
            *(part for key, value in sets.items() for part in ("--set", f"{key}={value}")),
        )

    async def run(self, *arguments: str) -> str:
        async with within(LIMIT_S, " ".join(arguments)):
            return await headrace(*self.at, *arguments)

    async def send(self, topic: str, records: list[Outgoing]) -> None:
        producer = self.cluster.producer()
        await producer.start()
        await producer.send_many(f"{self.prefix}classify.{topic}", records)
        await producer.stop()

    async def models(self) -> ModelsLog:
        log = ModelsLog(self.cluster, f"{self.prefix}classify.models")
        await log.start()
        await log.stop()
        return log

    async def train(self, ranks: int) -> ModelVersion:
        said = await self.run("trainer", "--once", "--ranks", str(ranks))
        found = re.search(r"trained (\S+)", said)
        assert found, said
        return (await self.models()).versions["default", found[1]]


async def test_ranks_agree_on_the_rows_of_a_teacher_and_make_the_version_again(embedded_bootstrap, tmp_path: Path):
    place, made = Place(embedded_bootstrap, tmp_path), labels(500)
    await place.run("topics", "apply")
    await place.send("labels", made[:HUMAN])
    await place.send("machine-labels", taught(made))
    one, two = await place.train(1), await place.train(2)

    assert one.lineage.digest == two.lineage.digest
    assert one.lineage.rows == two.lineage.rows
    assert one.lineage.machine_offsets == two.lineage.machine_offsets
    assert sum(part.end for part in one.lineage.machine_offsets) == len({machine.key for machine in taught(made)})
    assert one.lineage.teachers == two.lineage.teachers == ("encoder-1",)
    assert one.lineage.dropped == two.lineage.dropped
    assert not one.unproven
    shown = await place.run("models", "show", two.version)
    assert re.search(r"teacher +encoder-1", shown), shown
    assert "the weights are the same" in await place.run("models", "reproduce", two.version)

    told = decode_label(made[-1].value)
    assert told is not None
    said = await place.run("labels", "erase", "--text", told.text)
    assert f"erased 1 label of teachers on {place.prefix}classify.machine-labels; barred 1 text" in said
    with pytest.raises(Exception, match="erased since, 1 label of teachers"):
        await place.run("models", "reproduce", two.version)
    await place.send("machine-labels", taught(made[-1:]))
    three = await place.train(2)
    assert three.lineage.dropped["machine-barred"] == 1


async def test_without_a_label_of_a_person_only_an_operator_promotes_what_was_made(embedded_bootstrap, tmp_path: Path):
    place = Place(embedded_bootstrap, tmp_path)
    await place.run("topics", "apply")
    await place.send("machine-labels", taught(labels(300)))
    version = await place.train(2)
    log = await place.models()

    assert version.unproven
    assert (version.lineage.rows, version.lineage.unproven) == (0, True)
    assert log.resolve("default", "champion") is None
    assert log.verdicts["default", version.version].reason.startswith("no person labelled any of its rows")
    assert "WARNING" in await place.run("models", "promote", version.version)
    assert (await place.models()).resolve("default", "champion") == version
