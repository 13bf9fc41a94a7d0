"""Read the topic of teachers' labels: up to the frozen ends of a snapshot, or all that it holds now.

A label counts under the key that its text and teacher make, so that an erasure finds it. What is not so, or has scores
that are no shares, is passed over and counted by its reason.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headrace.core.label_rules import Rules, learnt_as
from headrace.core.text import label_name
from headrace.files.spreadsheet import csv_writer
from headrace.kafka.interface import Cluster, Record
from headrace.kafka.range_reader import read_topic
from headrace.learning.data.labels import read_frozen
from headrace.learning.data.validation import KEY_BYTES, NO_WORDS, is_allowed, last_of_ids, text_keys
from headrace.model import store
from headrace.model.places import Location
from headrace.process.logs import event
from headrace_schemas.codec import MAX_TEXT_BYTES, decode_machine_label
from headrace_schemas.errors import BadKeyError, RequestTooLargeError, WireError, place
from headrace_schemas.headers import content_type
from headrace_schemas.records import BarredText, MachineLabel, Score
from headrace_schemas.topics import machine_labels_key, text_key

if TYPE_CHECKING:
    from headrace.learning.distributed.job import MachineSource

FAILED = "failed"
EMPTY_LABEL = "empty-label"
UNKNOWN_LABEL = "unknown-label"
BAD_SCORES = "bad-scores"
OTHER_TEACHER = "other-teacher"
BARRED = "barred"
ERASED = "erased"
REASON = "machine-"
"""What reasons for which machine labels are left out begin with, where they stand beside those of people's."""

_MOST_SUM = 1.01
_TOLERANCE = 1e-6

Content = MachineLabel | BarredText | str | None
"""A record of the topic: the code of what is wrong with it, or None for a tombstone."""


class LastMachineRecord(msgspec.Struct, frozen=True):
    """The last record of ``key`` in one partition."""

    key: bytes
    partition: int
    offset: int
    timestamp_ms: int
    content: Content


class MachineShard(msgspec.Struct, frozen=True, kw_only=True):
    """What some partitions of ``topic`` hold: the last record of each key and partition, by partition and offset.

    ``dropped`` counts records that can't have a key, and offsets that retention took, as ``REASON`` and the code.
    """

    topic: str
    records: tuple[LastMachineRecord, ...]
    dropped: dict[str, int]


async def read_machine_partitions(
    cluster: Cluster, source: MachineSource, partitions: Collection[int], max_text_bytes: int
) -> MachineShard:
    """Read ``partitions`` of the topic, each within its range of ``source``, as people's labels are read.

    Raises as :func:`~headrace.learning.data.labels.read_partitions` does.
    """
    last: dict[tuple[int, bytes], LastMachineRecord] = {}
    lost: Counter[str] = Counter()
    keyless = 0
    async for record in read_frozen(cluster, source.topic, source.ranges, partitions, lost):
        if record.key:
            last[record.partition, record.key] = _last(record, decode(record, max_text_bytes))
        else:
            keyless += 1
    dropped = Counter({REASON + BadKeyError.code: keyless}) + Counter({REASON + why: n for why, n in lost.items()})
    ordered = sorted(last.values(), key=lambda one: (one.partition, one.offset))
    return MachineShard(topic=source.topic, records=tuple(ordered), dropped=dict(dropped))


async def read_machine_labels(
    cluster: Cluster, topic: str, max_text_bytes: int = MAX_TEXT_BYTES
) -> list[LastMachineRecord]:
    """What the topic holds now, the last record of each key, by partition and offset; tombstones are left out.

    Raises a KafkaError.
    """
    last: dict[tuple[int, bytes], LastMachineRecord] = {}
    async for record in read_topic(cluster, topic, "machine labels"):
        if record.key:
            last[record.partition, record.key] = _last(record, decode(record, max_text_bytes))
    held = sorted(last.values(), key=lambda one: (one.partition, one.offset))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(one.key for one in held))}
    counted = last_of_ids(
        np.array([numbers[one.key] for one in held], np.int64),
        np.array([one.timestamp_ms for one in held], np.int64),
        np.array([one.partition for one in held], np.int64),
    )
    pairs = zip(held, counted.tolist(), strict=True)
    return [one for one, is_last in pairs if is_last and one.content is not None]


async def read_barred(cluster: Cluster, topic: str) -> frozenset[str]:
    """The keys of the texts that are barred now, for :func:`is_barred`: read from the records' keys alone, so that one
    that can't be decoded bars its text all the same. Raises a KafkaError.
    """
    last: dict[tuple[int, str], bool] = {}
    async for record in read_topic(cluster, topic, "erased texts"):
        kind, _, text = (record.key or b"").decode("ascii", "replace").partition("/")
        if kind == "barred":
            last[record.partition, text] = record.value is not None or record.discarded is not None
    return frozenset(text for (_, text), bars in last.items() if bars)


def decode(record: Record, max_text_bytes: int) -> Content:
    """What ``record`` says; the code of what is wrong with it, which is logged too."""
    where = place(record.topic, record.partition, record.offset)
    try:
        if record.discarded is not None:
            raise RequestTooLargeError("record", f"has {record.discarded.size} bytes", where)
        found = decode_machine_label(
            record.value, content_type(record.headers, where), limit=max_text_bytes, where=where
        )
        if found is not None and record.key != machine_labels_key(found):
            raise BadKeyError("key", "is not that of the text and the teacher", where)
    except WireError as error:
        event("machine_labels.unreadable", level="debug", error=str(error))
        return error.code
    return found


def scores_of(label: MachineLabel, allowed: Collection[str]) -> dict[str, float] | str:
    """The share of each class in what a teacher said, summing to one; or the code of why it says nothing.

    ``allowed`` are the names of the classes that may be learnt, empty for any. A teacher that gave no scores is taken
    to be sure.
    """
    if label.label is None:
        return FAILED
    name = label_name(label.label)
    if not name:
        return EMPTY_LABEL
    if not is_allowed(name, allowed):
        return UNKNOWN_LABEL
    shares: dict[str, float] = {}
    for given in label.scores:
        if not 0 <= given.score <= 1:  # nor is what is no number
            return BAD_SCORES
        of = label_name(given.label)
        if of and is_allowed(of, allowed):
            shares[of] = shares.get(of, 0.0) + given.score
    if not label.scores:
        shares[name] = 1.0
    best, total = max(shares.values(), default=0.0), sum(shares.values())
    if not 0 < total <= _MOST_SUM or shares.get(name, 0.0) < best - _TOLERANCE:
        return BAD_SCORES
    return {of: share / total for of, share in shares.items() if share}


def machine_label_by_rules(label: MachineLabel, rules: Rules) -> MachineLabel | None:
    """What a teacher said with its classes as they are learnt now; the shares of classes that became one are added.

    None where the likeliest class is no longer given. What has no label, or scores that are no shares, stays as it is.
    """
    if not rules or label.label is None or not all(0 <= one.score <= 1 for one in label.scores):
        return label
    named = learnt_as(label_name(label.label), rules)
    if named is None:
        return None
    shares: dict[str, float] = {}
    for given in label.scores:
        learnt = learnt_as(label_name(given.label), rules)
        if learnt is not None:
            shares[learnt] = min(1.0, shares.get(learnt, 0.0) + given.score)
    likeliest = max(shares, key=lambda name: (shares[name], name == named), default=named)
    scores = tuple(Score(label=name, score=share) for name, share in shares.items())
    return msgspec.structs.replace(label, label=likeliest, scores=scores)


def words_id(key: bytes) -> str:
    """How the key of a text's words stands in a :class:`BarredText` and in the ids of labels; "" for no words."""
    return key[:KEY_BYTES].hex() if key != NO_WORDS else ""


def is_barred(text: str, key: bytes, barred: Collection[str]) -> bool:
    """Whether ``text``, whose words have ``key``, was erased: it, or one of the same words."""
    return bool(barred) and (text_key(text) in barred or words_id(key) in barred)


class Erasure(msgspec.Struct, frozen=True):
    """What erases texts from the topic: ``keys`` are of labels that get a tombstone, ``barred`` of texts that no
    teacher is asked about again.
    """

    keys: tuple[bytes, ...]
    barred: tuple[str, ...]


def erasure_of(texts: Sequence[str], held: Sequence[LastMachineRecord]) -> Erasure:
    """What erases ``texts``, and those of the same words, of the records ``held`` on the topic."""
    wanted = frozenset(text_keys(texts)) - {NO_WORDS}
    labels = [one for one in held if isinstance(one.content, MachineLabel)]
    said = [one.content.text for one in labels if isinstance(one.content, MachineLabel)]
    same = [text for text, key in zip(said, text_keys(said), strict=True) if key in wanted]
    barred = {text_key(text) for text in (*texts, *same)} | {words_id(key) for key in wanted}
    # By the key: what can't be read there may be a label of the text too.
    keys = [one.key for one in held if one.key.startswith(b"label/") and _text_part(one.key) in barred]
    return Erasure(tuple(keys), tuple(sorted(barred)))


def _text_part(key: bytes) -> str:
    return key.split(b"/")[1].decode("ascii", "replace")


class MachineThere(msgspec.Struct, frozen=True):
    """A teacher's label on the topic, as training takes it; ``error`` says why it can't be used."""

    text: str
    teacher: str
    label: str
    score: float
    scores: dict[str, float]
    labelled_at_ms: int
    error: str | None = None

    def cells(self) -> tuple[str, ...]:
        """What a line of a list shows."""
        return self.teacher, f"{self.score:.3f}", self.label, self.text


def machine_there(held: Sequence[LastMachineRecord]) -> list[MachineThere]:
    """The labels among the records ``held``; texts that are barred are left out of what can be used."""
    barred = {one.content.text_key for one in held if isinstance(one.content, BarredText)}
    labels = [one.content for one in held if isinstance(one.content, MachineLabel)]
    found = []
    for label, key in zip(labels, text_keys([one.text for one in labels]), strict=True):
        scores: dict[str, float] | str = scores_of(label, ())
        if is_barred(label.text, key, barred):
            scores = BARRED
        error = scores if isinstance(scores, str) else None
        shares = {} if isinstance(scores, str) else scores
        name = label_name(label.label or "")
        found.append(
            MachineThere(
                label.text, label.teacher, name, shares.get(name, 0.0), shares, label.labelled_at_ms, error=error
            )
        )
    return found


def write_machine_labels(where: Location, labels: Sequence[MachineThere]) -> None:
    """Write ``labels`` for the owner's eyes alone, as .csv or as JSON lines; a part of a file is never left.

    Raises StoreError when the file can't be written.
    """
    out = io.StringIO(newline="")
    if where.below[-1].lower().endswith(".csv"):
        write = csv_writer(out, ("text", "label", "score", "teacher"))
        for one in labels:
            write((one.text, one.label, one.score, one.teacher))
    else:
        for one in labels:
            row = {name: getattr(one, name) for name in ("text", "label", "score", "teacher", "scores")}
            out.write(f"{msgspec.json.encode(row).decode()}\n")
    store.write(where, out.getvalue().encode(), "export", private=True)


def _last(record: Record, content: Content) -> LastMachineRecord:
    return LastMachineRecord(record.key or b"", record.partition, record.offset, record.timestamp, content)
