"""The rows that the gate decides by: a holdout that the operator set aside, and other versions' answers to the test
rows.

The holdout is a file, a URI or a topic. No training learns from its texts, and whoever writes labels must not be able
to write it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from headrace.core.gate import HOLDOUT_TOPIC
from headrace.core.label_rules import Rules, answered_as, learnt_as
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.files.table import Reading
from headrace.kafka.interface import Cluster, TopicPartition, connected
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.labels import read_partitions, which_count
from headrace.learning.data.split import OWN_TEST_FILE, Parts, Splits
from headrace.learning.data.validation import NO_RULES, clean, text_keys
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import Checkpoints, Compared, FileSource, TopicSource
from headrace.learning.evaluate import answer, latency_us
from headrace.model import store
from headrace.model.backends.interface import Backend
from headrace.model.places import as_told
from headrace.security.private_folder import temporary_folder
from headrace_schemas.records import LabelledText, ModelVersion, OffsetRange

NO_ROWS = Rows((), ())


class Holdout(msgspec.Struct, frozen=True):
    """``rows`` are on rank 0 alone; ``keys`` of their texts and the ``digest`` of these are on every rank."""

    rows: Rows
    keys: frozenset[bytes]
    digest: str


def read_holdout(
    place: str,
    cluster: Cluster | None,
    exchange: Exchange,
    *,
    hashing: str,
    max_text_bytes: int,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    rules: Rules = NO_RULES,
) -> Holdout:
    """Read the rows at ``place`` by rank 0 and tell all ranks the keys of their texts. A collective.

    Their labels are what they are learnt as by ``rules``; a row whose label is no longer given decides nothing.

    Raises DatasetError for what can't be read or has no row with a text and a label, StoreError, and a KafkaError.
    """
    rows = NO_ROWS
    if exchange.rank == 0:
        rows = clean(_ruled(_read_rows(place, cluster, max_text_bytes, reading), rules)).rows
        if not len(rows):
            raise DatasetError(f"gate.holdout is {place}, which has no row with a text and a label to decide by")
    keys = exchange.gather(text_keys(rows.texts, hashing), list[bytes])[0]
    return Holdout(rows, frozenset(keys), hashlib.sha256(msgspec.msgpack.encode(sorted(keys))).hexdigest()[:16])


def _ruled(rows: Rows, rules: Rules) -> Rows:
    learnt = [learnt_as(label_name(label), rules) for label in rows.labels]
    kept = [(text, label) for text, label in zip(rows.texts, learnt, strict=True) if label is not None]
    return Rows(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def keep_to(holdout: Holdout, checkpoints: Checkpoints, place: str) -> None:
    """Raises DatasetError when the training that goes on from ``checkpoints`` began with other rows."""
    begun = checkpoints.load("holdout")
    if begun is None:
        checkpoints.save("holdout", {"digest": holdout.digest})
    elif begun["digest"] != holdout.digest:
        raise DatasetError(
            f"the rows of gate.holdout, {place}, were changed while this training ran, and it has learnt from texts "
            "that they hold now. The next training takes them as they are"
        )


def _read_rows(place: str, cluster: Cluster | None, max_text_bytes: int, reading: Reading) -> Rows:
    if place.startswith(HOLDOUT_TOPIC):
        if cluster is None:
            raise ValueError(f"gate.holdout is on the topic {place}, but no cluster was given")
        return asyncio.run(_read_topic(cluster, place.removeprefix(HOLDOUT_TOPIC), max_text_bytes))
    if "://" not in place:
        return _read_file(Path(place), place, reading)
    with temporary_folder("headrace-holdout-") as folder:
        # A setting, which the job only repeats: the operator's own word.
        where = as_told(place)
        file = folder / where.below[-1]
        file.write_bytes(store.read(where))
        return _read_file(file, place, reading)


def _read_file(file: Path, place: str, reading: Reading) -> Rows:
    try:
        return read_rows(file, reading=reading)
    except DatasetError:
        # What that error quotes of the file may be a text, and this one goes into the log and the training's record.
        raise DatasetError(
            f"the rows of gate.holdout, {place}, can't be read; `headrace evaluate` with this file says why"
        ) from None


async def _read_topic(cluster: Cluster, topic: str, max_text_bytes: int) -> Rows:
    async with connected(cluster.consumer(read_committed=True)) as consumer:
        names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
        if not names:
            raise DatasetError(f"there is no topic {topic}, which gate.holdout names")
        firsts, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    ranges = tuple(OffsetRange(name.partition, firsts[name], ends[name]) for name in names)
    source = TopicSource(topic=topic, ranges=ranges, max_text_bytes=max_text_bytes)
    shard = await read_partitions(cluster, source, [one.partition for one in ranges])
    counted = which_count([(one.id, one.timestamp_ms, one.partition) for one in shard.records])
    pairs = zip(shard.records, counted, strict=True)
    held = [one.content for one, counts in pairs if counts and isinstance(one.content, LabelledText)]
    return Rows(tuple(one.text for one in held), tuple(one.label for one in held))


T = TypeVar("T")


class _Share(msgspec.Struct, frozen=True, kw_only=True):
    """Of a rank's test rows the labels answered, and what :func:`fair_rows` and :func:`known_rows` say of them."""

    answers: list[str]
    fair: list[bool] | None
    known: list[bool] | None


def compared(
    version: ModelVersion,
    backend: Backend,
    parts: Parts,
    source: FileSource | TopicSource,
    splits: Splits,
    exchange: Exchange,
    holdout: Rows = NO_ROWS,
    monotonic: Callable[[], float] = time.perf_counter,
) -> Compared:
    """Answer this rank's test rows by ``backend``, which is ``version``, and gather what all ranks answered.

    ``parts`` are the rows of the new version, read from ``source``, by whose rules a label that was renamed since is
    compared as the new one; of ``holdout`` each rank answers its own and keeps
    the answers. A collective.
    """
    test = parts.split.test
    rules = source.rules if isinstance(source, TopicSource) else NO_RULES
    own = _Share(
        answers=[answered_as(label, rules) for label in answer(backend, test.texts)],
        fair=fair_rows(version, parts, splits),
        known=known_rows(version, parts, source),
    )
    told = exchange.gather(own, _Share)
    return Compared(
        version=version.version,
        split=_split_of(version),
        answers=_joined([one.answers for one in told]),
        fair=_all_told([one.fair for one in told]),
        known=_all_told([one.known for one in told]),
        latency_us=latency_us(backend, test.texts or parts.split.train.texts, monotonic),
        holdout_answers=tuple(answered_as(label, rules) for label in answer(backend, holdout.texts)),
        spared=version.lineage is not None and version.lineage.holdout == parts.holdout,
    )


def fair_rows(version: ModelVersion, parts: Parts, splits: Splits) -> list[bool] | None:
    """Which of this rank's test rows ``version`` was not trained on: those that its own split calls test too.

    Of the labels that lent test rows to its training, or a row that was moved into the test here, nobody can tell.
    None when its split is not known here, as its key is another one or its test rows were a file of their own.
    """
    test = parts.split.test
    split = _split_of(version)
    if split == parts.splitting == OWN_TEST_FILE:
        return [True] * len(test)
    found = splits.find(split)
    if found is None:
        return None
    lent = frozenset[str]() if version.lineage is None else frozenset(version.lineage.lent)
    calls_test = found.calls_test(test.texts)
    return [is_test and label not in lent for is_test, label in zip(calls_test, test.labels, strict=True)]


def known_rows(version: ModelVersion, parts: Parts, source: FileSource | TopicSource) -> list[bool] | None:
    """Which of this rank's test rows the snapshot of ``version`` held; None when it was trained on something else."""
    lineage = version.lineage
    if parts.unproven:  # its test rows are of another topic
        return None
    if lineage is None or not isinstance(source, TopicSource) or lineage.source != source.topic or not lineage.offsets:
        return None
    ends = {one.partition: one.end for one in lineage.offsets}
    return [offset < ends.get(partition, 0) for partition, offset in parts.test_places]


def _split_of(version: ModelVersion) -> str | None:
    return None if version.lineage is None else version.lineage.split


def _all_told(parts: Sequence[Sequence[bool] | None]) -> tuple[bool, ...] | None:
    told = [part for part in parts if part is not None]
    return _joined(told) if len(told) == len(parts) else None


def _joined(parts: Sequence[Sequence[T]]) -> tuple[T, ...]:
    return tuple(one for part in parts for one in part)
