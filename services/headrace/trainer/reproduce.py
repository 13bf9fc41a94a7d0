"""Train a version again from the offsets in its lineage, having looked first at what the log still has of them.

The log is compacted, so a label that was replaced or erased since is gone sooner or later. Then the rows are others,
and so would the weights be: what was taken is said, and nothing is trained.
"""

from __future__ import annotations

import msgspec

from headrace.core.errors import UserError
from headrace.kafka.interface import Cluster, TopicPartition
from headrace.learning.compress.curve import Budget
from headrace.learning.data.labels import Shard, read_partitions
from headrace.learning.data.machine_labels import (
    MachineShard,
    is_barred,
    read_machine_labels,
    read_machine_partitions,
)
from headrace.learning.data.split import Splits, Splitting
from headrace.learning.data.validation import text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import Job, MachineSource, TopicSource
from headrace.learning.distributed.merge import merge_labels
from headrace.learning.distributed.merge_machine import merge_snapshot
from headrace.learning.fit.hyperparameters import Recipe
from headrace.trainer.settings import TrainerSettings
from headrace_schemas.records import BarredText, Lineage, MachineLabel, ModelVersion, OffsetRange

BUDGET = "budget_points"
"""Under which name a version's compression report has the budget that it was searched with."""

MOST_RANKS = 64
"""Each is a process here, and no signature covers how many a record names."""


class NotReproducibleError(UserError):
    """The record of the version does not say how it was trained from a topic."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What the log has now of a version's snapshot.

    ``equal``: the same labels, ids and texts, of which none was erased since. ``rows``: training and validation rows
    now. ``retention``: offsets that were deleted. Where they are not equal, ``erased`` and ``labelled`` are ids: those
    erased later, and those labelled later that the snapshot does not hold. What compaction took of it looks like a
    new id.
    """

    equal: bool
    rows: int
    retention: int
    erased: tuple[str, ...]
    labelled: tuple[str, ...]
    machine_rows: int = 0
    """Rows of teachers now."""
    machine_erased: int = 0
    """Labels of teachers in the snapshot that were erased, or whose text was barred, since."""


def lineage_of(version: ModelVersion) -> Lineage:
    """The lineage of a version that was trained from a topic. Raises NotReproducibleError for any other."""
    lineage = version.lineage
    if lineage is None or not lineage.offsets or lineage.recipe is None or version.weights_sha256 is None:
        raise NotReproducibleError(
            f"{version.version} can't be trained again: its record has no offsets of a labels topic and recipe. Only "
            "versions that `headrace trainer` made have them."
        )
    if lineage.ranks > MOST_RANKS:
        raise NotReproducibleError(
            f"{version.version} can't be trained again here: its record names {lineage.ranks} ranks, more than "
            f"{MOST_RANKS}, and each would be a process on this machine."
        )
    return lineage


def check_source(version: ModelVersion, lineage: Lineage, labels: str) -> None:
    """Raises NotReproducibleError when the record names another topic than ``labels``: it is not for it to choose."""
    if lineage.source != labels:
        raise NotReproducibleError(
            f"{version.version} can't be trained again here: its record says that it was trained from the topic "
            f"{lineage.source!r}, and topics.labels is {labels!r}. If it is yours, set that as topics.labels."
        )


def source_of(lineage: Lineage, settings: TrainerSettings, machine_labels: str) -> TopicSource:
    """The snapshot that the lineage names, labels of teachers on the topic ``machine_labels``, and the rules of labels
    that held then. Which labels are allowed is not in it: the ``settings`` of now say that.
    """
    machine = None
    if lineage.teachers:
        weights = {teacher: lineage.teacher_weights.get(teacher, 1.0) for teacher in lineage.teachers}
        machine = MachineSource(topic=machine_labels, ranges=lineage.machine_offsets, teachers=weights)
    return TopicSource(
        topic=lineage.source,
        ranges=lineage.offsets,
        max_text_bytes=settings.max_text_bytes,
        labels=settings.labels,
        rules=lineage.label_rules,
        machine=machine,
    )


def splitting_of(version: ModelVersion, splits: Splits) -> Splitting:
    """The split that divided the version's rows. Raises NotReproducibleError when its key or hashing is not here."""
    wanted = None if version.lineage is None else version.lineage.split
    found = splits.find(wanted)
    if found is None:
        raise NotReproducibleError(
            f"{version.version} can't be trained again here: its rows were divided by the split {wanted}, and "
            f"trainer.split_key makes {splits.current.id}. Set the key that its training had as trainer.split_key or "
            "trainer.previous_split_key."
        )
    return found


async def compare_rows(cluster: Cluster, source: TopicSource, digest: str, splitting: Splitting) -> Rows:
    """Read the snapshot as the log has it now, and compare it with the ``digest`` of what it was.

    Raises DatasetError when the log ends before the snapshot does or leaves too few rows, and a KafkaError.
    """
    numbers = [one.partition for one in source.ranges]
    shard = await read_partitions(cluster, source, numbers)
    taught, machine_erased = None, 0
    if source.machine is None:
        parts = merge_labels(shard, Alone(), splitting)
    else:
        taught, machine_erased = await _machine_labels(cluster, source)
        parts = merge_snapshot(shard, taught, source, Alone(), splitting)
    later = await _later(cluster, source, shard)
    erased = tuple(id_ for id_, is_erased in later if is_erased)
    # Compaction may not have taken yet what was erased, and it is to be learnt from no more.
    held = {record.id.decode("utf-8", "backslashreplace") for record in shard.records}
    equal = parts.digest == digest and held.isdisjoint(erased) and not machine_erased
    return Rows(
        equal=equal,
        rows=parts.rows,
        retention=shard.dropped.get("retention", 0),
        erased=() if equal else erased,
        labelled=() if equal else tuple(id_ for id_, is_erased in later if not is_erased),
        machine_rows=parts.machine_rows,
        machine_erased=machine_erased,
    )


async def _machine_labels(cluster: Cluster, source: TopicSource) -> tuple[MachineShard, int]:
    """What teachers said in the snapshot, as the log has it now; and how much of that was erased or barred since."""
    if source.machine is None:
        raise ValueError("the source names no machine labels")
    ranges = source.machine.ranges
    numbers = [one.partition for one in ranges]
    shard = await read_machine_partitions(cluster, source.machine, numbers, source.max_text_bytes)
    labels = [one for one in shard.records if isinstance(one.content, MachineLabel)]
    texts = [one.content.text for one in labels if isinstance(one.content, MachineLabel)]
    now = await read_machine_labels(cluster, source.machine.topic, source.max_text_bytes)
    there = {one.key for one in now}
    barred = {one.content.text_key for one in now if isinstance(one.content, BarredText)}
    before = {one.content.text_key for one in shard.records if isinstance(one.content, BarredText)}
    pairs = zip(labels, texts, text_keys(texts), strict=True)
    gone = sum(
        not is_barred(text, key, before) and (one.key not in there or is_barred(text, key, barred))
        for one, text, key in pairs
    )
    return shard, gone


def job_again(version: ModelVersion, source: TopicSource, *, folder: str, holdout: str | None) -> Job:
    """The job that made ``version``, with a ``folder`` of its own for what comes of it.

    ``holdout`` is where the rows are that decide now. Raises NotReproducibleError when the version's training left out
    such rows and there are none: it would learn from them.
    """
    lineage = lineage_of(version)
    if lineage.holdout is not None and holdout is None:
        raise NotReproducibleError(
            f"{version.version} can't be trained again here: its training left out the texts of a holdout, and "
            "gate.holdout is not set, so it would learn from other rows."
        )
    budget = version.compression.get(BUDGET)
    return Job(
        id=f"reproduce-{version.version}",
        source=source,
        recipe=msgspec.json.decode(lineage.recipe or "", type=Recipe),
        budget=None if budget is None else Budget(points=budget),
        checkpoints=f"{folder}/training",
        out=f"{folder}/versions",
        created_at_ms=version.created_at_ms,
        parent=version.parent,
        split=lineage.split,
        holdout=holdout if lineage.holdout is not None else None,
        holdout_digest=lineage.holdout,
    )


async def _later(cluster: Cluster, source: TopicSource, shard: Shard) -> tuple[tuple[str, bool], ...]:
    """Ids with a record behind the snapshot that erases them, or that have none in it; whether that record erases."""
    consumer = cluster.consumer(read_committed=True)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(source.topic, one.partition) for one in source.ranges])
    finally:
        await consumer.stop()
    behind = tuple(
        OffsetRange(one.partition, one.end, ends[TopicPartition(source.topic, one.partition)]) for one in source.ranges
    )
    numbers = [one.partition for one in behind if one.first < one.end]
    later = await read_partitions(cluster, msgspec.structs.replace(source, ranges=behind), numbers)
    known = {record.id for record in shard.records}
    return tuple(
        (record.id.decode("utf-8", "backslashreplace"), record.content is None)
        for record in later.records
        if record.content is None or record.id not in known
    )
