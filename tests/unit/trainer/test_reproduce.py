"""What the log still has of a version's labels, and the job that makes the version again."""

from __future__ import annotations

import msgspec
import pytest

from headrace.commands.models.train import describe
from headrace.core.fields import Secret
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace.learning.data.labels import read_partitions
from headrace.learning.data.machine_labels import read_machine_partitions
from headrace.learning.data.split import UNKEYED, Splits, Splitting
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import Job, TopicSource
from headrace.learning.distributed.merge import merge_labels
from headrace.learning.distributed.merge_machine import merge_snapshot
from headrace.learning.fit.hyperparameters import Recipe
from headrace.trainer.reproduce import (
    NotReproducibleError,
    check_source,
    compare_rows,
    job_again,
    lineage_of,
    source_of,
    splitting_of,
)
from headrace_schemas.records import BarredText, Lineage, ModelVersion, OffsetRange
from headrace_schemas.topics import machine_label_key, text_key
from tests.support.trainer_cluster import NAME, SETTINGS, TOPICS, TrainerCluster, story

LABELS = TopicPartition(TOPICS.labels, 0)
ROWS = 150
RECIPE = Recipe(seed=7)


async def trained(world: TrainerCluster) -> Lineage:
    """Labels on both partitions, and the lineage of a training that read them."""
    for partition in (0, 1):
        await world.label(*(f"{partition}-{number}" for number in range(ROWS)), partition=partition)
    source = TopicSource(
        topic=TOPICS.labels,
        ranges=(OffsetRange(0, 0, ROWS), OffsetRange(1, 0, ROWS)),
        max_text_bytes=SETTINGS.max_text_bytes,
    )
    parts = merge_labels(await read_partitions(world.cluster, source, [0, 1]), Alone(), UNKEYED)
    recipe = msgspec.json.encode(RECIPE).decode()
    return Lineage(
        source=source.topic, digest=parts.digest, rows=parts.rows, offsets=source.ranges, recipe=recipe, ranks=2
    )


async def compared(world: TrainerCluster, lineage: Lineage):
    return await compare_rows(
        world.cluster, source_of(lineage, SETTINGS, TOPICS.machine_labels), lineage.digest, UNKEYED
    )


@story
async def test_labels_that_came_later_change_nothing_of_the_snapshot(world):
    lineage = await trained(world)
    await world.label("0-1", "new", label="neg")
    await world.put("never there", None)
    found = await compared(world, lineage)
    assert (found.equal, found.rows, found.erased, found.labelled) == (True, lineage.rows, (), ())


@story
async def test_a_snapshot_with_a_text_that_was_erased_since_is_trained_no_more_though_the_log_still_has_it(world):
    lineage = await trained(world)
    await world.put("0-2", None)
    found = await compared(world, lineage)
    assert (found.equal, found.rows, found.erased) == (False, lineage.rows, ("0-2",))


@story
async def test_what_compaction_took_for_a_later_label_or_an_erasure_is_named(world):
    lineage = await trained(world)
    await world.label("0-1", label="neg")
    await world.put("0-2", None)
    await world.label("new")
    world.cluster.log(LABELS).remove(1)
    world.cluster.log(LABELS).remove(2)
    found = await compared(world, lineage)
    assert not found.equal
    assert (found.erased, found.labelled) == (("0-2",), ("0-1", "new"))


@story
async def test_offsets_that_retention_took_are_counted(world):
    lineage = await trained(world)
    world.cluster.log(LABELS).truncate_before(5)
    found = await compared(world, lineage)
    assert (found.equal, found.retention) == (False, 5)


def version_of(lineage: Lineage) -> ModelVersion:
    return ModelVersion(
        name=NAME,
        version="v1",
        uri="memory://v1",
        sha256="0",
        size=1,
        labels=("pos",),
        created_at_ms=5,
        parent="v0",
        lineage=lineage,
        weights_sha256="1",
        compression={"budget_points": 1.5},
    )


def test_a_version_is_made_again_by_the_split_that_it_was_made_by_or_not_at_all():
    now, then, gone = (Secret(f"{name} key of sixteen") for name in ("now", "then", "gone"))
    splits = Splits(now, then)

    def of(split: str | None) -> Splitting:
        return splitting_of(version_of(Lineage(source="t", digest="d", rows=1, split=split)), splits)

    assert of(Splitting(then).id) == Splitting(then)
    # From before there were keys.
    first = Splitting(hashing="fnv1a-code-points+fmix64/1")
    assert of(None) == of(first.id) == first
    assert of(UNKEYED.id) == UNKEYED
    with pytest.raises(NotReproducibleError, match=r"v1 can't be trained again here.*trainer\.previous_split_key"):
        of(Splitting(gone).id)


@story
async def test_the_job_again_is_the_job_that_made_the_version(world):
    lineage = await trained(world)
    version = version_of(msgspec.structs.replace(lineage, split=UNKEYED.id))
    source = source_of(lineage_of(version), SETTINGS, TOPICS.machine_labels)
    job = job_again(version, source, folder="memory://again", holdout="rows.jsonl")
    assert (job.recipe, job.created_at_ms, job.parent, job.budget.points) == (RECIPE, 5, "v0", 1.5)
    assert (job.source.ranges, job.split) == (lineage.offsets, UNKEYED.id)
    assert job.holdout is None, "its training left out nothing"
    aside = msgspec.structs.replace(version, lineage=msgspec.structs.replace(version.lineage, holdout="d1"))
    again = job_again(aside, source, folder="memory://again", holdout="rows.jsonl")
    assert (again.holdout, again.holdout_digest) == ("rows.jsonl", "d1")
    with pytest.raises(NotReproducibleError, match=r"left out the texts of a holdout, and gate\.holdout is not set"):
        job_again(aside, source, folder="memory://again", holdout=None)
    assert isinstance(msgspec.json.decode(msgspec.json.encode(job), type=Job), Job)
    for without in ({"lineage": None}, {"lineage": msgspec.structs.replace(lineage, offsets=())}):
        with pytest.raises(NotReproducibleError, match="v1 can't be trained again"):
            lineage_of(msgspec.structs.replace(version, **without))


def test_a_record_does_not_choose_the_topic_that_is_read() -> None:
    lineage = Lineage(source="classify.requests", digest="d", rows=1, offsets=(OffsetRange(0, 0, 1),), recipe="{}")
    version = version_of(lineage)
    with pytest.raises(NotReproducibleError, match=r"trained from the topic 'classify\.requests'"):
        check_source(version, lineage, "classify.labels")
    check_source(version, lineage, "classify.requests")


def test_a_record_does_not_choose_how_many_processes_are_started() -> None:
    lineage = Lineage(
        source=TOPICS.labels,
        digest="0" * 64,
        rows=1,
        offsets=(OffsetRange(0, 0, 1),),
        recipe=msgspec.json.encode(RECIPE).decode(),
        ranks=5000,
    )
    with pytest.raises(NotReproducibleError, match="names 5000 ranks"):
        lineage_of(version_of(lineage))


def test_the_job_again_learns_labels_as_they_were_learnt_then():
    lineage = Lineage(source="t", digest="d", rows=1, label_rules={"economy": "business", "gossip": None})
    assert source_of(lineage, SETTINGS, TOPICS.machine_labels).rules == {"economy": "business", "gossip": None}


async def taught(world: TrainerCluster) -> Lineage:
    """As :func:`trained`, with labels of a teacher beside those of people."""
    world.add_machine_topic()
    await world.teach(*(f"taught {number}" for number in range(40)))
    lineage = await trained(world)
    lineage = msgspec.structs.replace(
        lineage,
        teachers=("encoder-1",),
        teacher_weights={"encoder-1": 0.5},
        machine_offsets=(OffsetRange(0, 0, 40), OffsetRange(1, 0, 0)),
    )
    source = source_of(lineage, SETTINGS, TOPICS.machine_labels)
    parts = merge_snapshot(
        await read_partitions(world.cluster, source, [0, 1]),
        await read_machine_partitions(world.cluster, source.machine, [0, 1], 1000),
        source,
        Alone(),
        UNKEYED,
    )
    assert parts.taught.weights.tolist() == [0.5] * parts.machine_rows
    return msgspec.structs.replace(lineage, digest=parts.digest, machine_rows=parts.machine_rows)


@story
async def test_what_teachers_said_belongs_to_the_snapshot_and_what_they_say_later_does_not(world):
    lineage = await taught(world)
    await world.teach("taught later")
    found = await compared(world, lineage)
    assert (found.equal, found.machine_rows, found.machine_erased) == (True, lineage.machine_rows, 0)
    assert found.machine_rows > 20


@pytest.mark.parametrize("how", ["tombstone", "barred", "replaced"])
def test_a_snapshot_of_which_a_teachers_label_is_gone_is_trained_no_more_and_that_is_said(how):
    @story
    async def play(world):
        lineage = await taught(world)
        if how == "tombstone":
            key = machine_label_key("taught 3", "encoder-1")
            await world.producer.send_batch(TOPICS.machine_labels, 0, [Outgoing(None, key)])
        elif how == "barred":
            await world.put_machine(BarredText(text_key=text_key("taught 3"), barred_at_ms=0))
        else:
            world.cluster.log(TopicPartition(TOPICS.machine_labels, 0)).remove(3)
        found = await compared(world, lineage)
        assert not found.equal
        assert found.machine_erased == (how != "replaced")
        said = describe(version_of(lineage), lineage, found)[-1]
        assert ("of teachers" if how != "replaced" else "teachers' labels made") in said

    play()
