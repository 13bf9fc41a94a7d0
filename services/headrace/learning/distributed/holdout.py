"""Rows that an operator set aside: no training learns from their texts, and the gate judges by them alone.

They are in a file, at a URI, or on a topic, of which whoever writes labels may write none.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec

from headrace.core.gate import HOLDOUT_TOPIC
from headrace.files import DatasetError
from headrace.files.table import Reading
from headrace.kafka.interface import Cluster, TopicPartition
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.text_keys import text_keys
from headrace.learning.data.validation import clean
from headrace.learning.distributed.checkpoint import Checkpoints
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import TopicSource
from headrace.learning.distributed.labels import read_partitions
from headrace.model import store
from headrace.model.places import as_told
from headrace.security.private_folder import temporary_folder
from headrace_schemas.records import LabelledText, OffsetRange

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
) -> Holdout:
    """Read the rows at ``place`` by rank 0 and tell all ranks the keys of their texts. A collective.

    Raises DatasetError for what can't be read or has no row with a text and a label, StoreError, and a KafkaError.
    """
    rows = NO_ROWS
    if exchange.rank == 0:
        rows = clean(_read(place, cluster, max_text_bytes, reading)).rows
        if not len(rows):
            raise DatasetError(f"gate.holdout is {place}, which has no row with a text and a label to judge by")
    keys = exchange.gather(text_keys(rows.texts, hashing), list[bytes])[0]
    return Holdout(rows, frozenset(keys), hashlib.sha256(msgspec.msgpack.encode(sorted(keys))).hexdigest()[:16])


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


def _read(place: str, cluster: Cluster | None, max_text_bytes: int, reading: Reading) -> Rows:
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
    consumer = cluster.consumer(read_committed=True)
    await consumer.start()
    try:
        names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
        if not names:
            raise DatasetError(f"there is no topic {topic}, which gate.holdout names")
        firsts, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    finally:
        await consumer.stop()
    ranges = tuple(OffsetRange(name.partition, firsts[name], ends[name]) for name in names)
    source = TopicSource(topic=topic, ranges=ranges, max_text_bytes=max_text_bytes)
    shard = await read_partitions(cluster, source, [one.partition for one in ranges])
    held = [record.content for record in shard.records if isinstance(record.content, LabelledText)]
    return Rows(tuple(one.text for one in held), tuple(one.label for one in held))
