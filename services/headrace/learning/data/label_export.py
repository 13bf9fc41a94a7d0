"""The labels that the topic holds now, by id: of each id the last record, and none where that is a tombstone.

Labels as a file that training reads again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from headrace.core.label_names import label_name
from headrace.files.output import OutputError
from headrace.kafka.interface import Cluster, Record
from headrace.kafka.range_reader import read_topic
from headrace.learning.data.validation import EMPTY_LABEL, last_of_ids
from headrace.model import store
from headrace.model.places import Location
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type


class There(msgspec.Struct, frozen=True):
    """A label on the topic: its id, text and label, whose name is spelled as training spells it.

    ``error`` says why the trainer can't use it, and then text and label are empty.
    """

    id: str
    text: str
    label: str
    error: str | None = None


async def read_labels(cluster: Cluster, topic: str, only: Collection[str] | None = None) -> list[There]:
    """Read what the topic holds now, of the ids ``only`` where they are given, in the order of the first records.

    Which record of an id counts is as in a training (:func:`~headrace.learning.data.validation.last_of_ids`). Raises a
    KafkaError.
    """
    wanted = None if only is None else {id_.encode() for id_ in only}
    last: dict[bytes, dict[int, Record]] = {}
    async for record in read_topic(cluster, topic, "labels"):
        if record.key is not None and (wanted is None or record.key in wanted):
            last.setdefault(record.key, {})[record.partition] = record
    held = [record for of in last.values() for record in of.values()]
    ids = np.repeat(np.arange(len(last)), [len(of) for of in last.values()])
    timestamps, partitions = (
        np.array([getattr(record, name) for record in held], np.int64) for name in ("timestamp", "partition")
    )
    counted = last_of_ids(ids, timestamps, partitions).tolist()
    return [
        _there((record.key or b"").decode("utf-8", "backslashreplace"), record)
        for record, is_last in zip(held, counted, strict=True)
        if is_last and record.value is not None
    ]


def _there(id_: str, record: Record) -> There:
    try:
        label = decode_label(record.value, content_type(record.headers))
    except WireError as error:
        return There(id_, "", "", error.code)
    name = "" if label is None else label_name(label.label)
    return There(id_, label.text, name) if label is not None and name else There(id_, "", "", EMPTY_LABEL)


SUFFIXES = (".jsonl", ".csv")


def check_suffix(file: str) -> None:
    """Raise OutputError for a ``file`` with another suffix than SUFFIXES."""
    if not file.lower().endswith(SUFFIXES):
        raise OutputError(f"{file}: labels are written as {' or '.join(SUFFIXES)}.")


def write_labels(where: Location, labels: Sequence[There]) -> None:
    """Write ``labels`` with id, text and label, for the owner's eyes alone; a part of a file is never left.

    Raises StoreError when the file can't be written.
    """
    out = io.StringIO(newline="")
    if where.below[-1].lower().endswith(".csv"):
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("id", "text", "label"))
        rows.writerows((one.id, one.text, one.label) for one in labels)
    else:
        for one in labels:
            row = {"id": one.id, "text": one.text, "label": one.label}
            out.write(f"{msgspec.json.encode(row).decode()}\n")
    store.write(where, out.getvalue().encode(), "export", private=True)
