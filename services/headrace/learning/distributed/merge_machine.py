"""Which teachers' labels train beside the rows that people labelled, decided by all ranks alike.

As people's labels are merged: every rank tells a few numbers about each of its records, decides for all, and keeps its
own rows. Rows are taken in the order of (partition, offset), so they are the same however many ranks there are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.label_rules import learnt_as
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import Shard
from headrace.learning.data.machine_labels import (
    BARRED,
    OTHER_TEACHER,
    REASON,
    LastMachineRecord,
    MachineShard,
    is_barred,
    machine_label_by_rules,
    scores_of,
)
from headrace.learning.data.split import PARTS, Part, Parts, Splitting, digest_with
from headrace.learning.data.taught import Taught, admit, taught_digests
from headrace.learning.data.validation import (
    KEY_BYTES,
    RETIRED_LABEL,
    check_labels,
    key_halves,
    last_of_ids,
    number_keys,
    text_keys,
)
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import TopicSource
from headrace.learning.distributed.merge import Merged, merge_all, require_rows
from headrace_schemas.records import BarredText, MachineLabel


class _Records(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank tells of its n records: halves of a digest of each key (n, 2), partition, time, and of one that bars
    a text the key of it, else "".
    """

    ids: NDArray[np.uint64]
    partitions: NDArray[np.int64]
    times: NDArray[np.int64]
    barred: list[str]


class _Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank tells of its m rows: ``places`` (m, 2) are partition and offset, ``keys`` those of the texts' words,
    ``judging`` whether the split keeps such a text from training, ``names`` the likeliest classes. ``dropped``: what
    gave no row.
    """

    places: NDArray[np.int64]
    keys: list[bytes]
    judging: NDArray[np.bool_]
    teachers: list[str]
    names: list[str]
    dropped: dict[str, int]


class _Row(msgspec.Struct, frozen=True):
    place: tuple[int, int]
    text: str
    teacher: str
    name: str
    scores: dict[str, float]


def merge_snapshot(
    shard: Shard,
    machine: MachineShard,
    source: TopicSource,
    exchange: Exchange,
    splitting: Splitting,
    *,
    held_out: Collection[bytes] = frozenset(),
    most_labels: int | None = None,
) -> Parts:
    """Make this rank's rows of both topics together, as :func:`~headrace.learning.distributed.merge.merge_labels` does
    of people's labels alone. A collective.

    A teacher's label trains where the source allows the teacher, the text was not erased, nobody has labelled it and
    it is not in ``held_out``, and its hash lets it train (:func:`~headrace.learning.data.taught.admit`); one row a text
    of each teacher. Without any human row the split divides the machine rows, and the result is unproven. ``dropped``
    counts what is left out, the reasons with ``machine-`` before them.

    Raises DatasetError, on every rank, for a part without a row, where machine rows don't make up for it, and for more
    labels than ``most_labels``.
    """
    if source.machine is None:
        raise ValueError("the source names no machine labels")
    merged = merge_all(shard, exchange, splitting, held_out=held_out)
    own, dropped = _own_rows(machine, source, exchange)
    keys = text_keys([row.text for row in own], splitting.hashing)
    told = exchange.gather(
        _Rows(
            places=np.array([row.place for row in own], np.int64).reshape(len(own), 2),
            keys=[key[:KEY_BYTES] for key in keys],
            judging=splitting.judges(keys),
            teachers=[row.teacher for row in own],
            names=[row.name for row in own],
            dropped=dropped,
        ),
        _Rows,
    )
    unproven = not sum(merged.totals.values())
    places = np.concatenate([one.places for one in told])
    order = np.lexsort((places[:, 1], places[:, 0])).tolist()
    every = [_joined([getattr(one, name) for one in told]) for name in ("keys", "teachers", "names")]
    all_keys, teachers, names = ([of[place] for place in order] for of in every)
    judging = np.concatenate([one.judging for one in told])[order]
    admitted = admit(
        all_keys,
        np.zeros_like(judging) if unproven else judging,
        merged.people.keys() | {key[:KEY_BYTES] for key in held_out},
        teachers,
    )
    counts = sum((Counter(one.dropped) for one in told), Counter(merged.parts.dropped)) + Counter(admitted.dropped)
    first = sum(len(one.keys) for one in told[: exchange.rank])
    mine = [order[place] - first for place in admitted.places if first <= order[place] < first + len(own)]
    parts = msgspec.structs.replace(
        merged.parts,
        dropped=dict(sorted(counts.items())),
        disagreements=_disagreements(all_keys, names, merged.people),
    )
    if not admitted.places:
        require_rows(shard.topic, merged.totals)
        return parts
    origins = tuple(sorted({teachers[place] for place in admitted.places}))
    rows = [own[place] for place in mine]
    return _with_rows(
        msgspec.structs.replace(parts, unproven=unproven),
        merged,
        shard.topic,
        rows,
        [keys[place] for place in mine],
        origins,
        source.machine.teachers,
        exchange,
        splitting,
        most_labels,
    )


def _own_rows(shard: MachineShard, source: TopicSource, exchange: Exchange) -> tuple[list[_Row], dict[str, int]]:
    """The rows that this rank's records are, of the last record of each key; and how many records are none, and why."""
    records = shard.records
    told = exchange.gather(
        _Records(
            ids=key_halves([hashlib.blake2b(one.key, digest_size=KEY_BYTES).digest() for one in records]),
            partitions=np.array([one.partition for one in records], np.int64),
            times=np.array([one.timestamp_ms for one in records], np.int64),
            barred=[one.content.text_key if isinstance(one.content, BarredText) else "" for one in records],
        ),
        _Records,
    )
    last = last_of_ids(
        number_keys(np.concatenate([one.ids for one in told])),
        np.concatenate([one.times for one in told]),
        np.concatenate([one.partitions for one in told]),
    ).tolist()
    texts = _joined([one.barred for one in told])
    barred = {text for text, is_last in zip(texts, last, strict=True) if text and is_last}
    first = sum(len(one.barred) for one in told[: exchange.rank])
    held = [one for one, is_last in zip(records, last[first : first + len(records)], strict=True) if is_last]
    labels = [one.content for one in held if isinstance(one.content, MachineLabel)]
    keys = iter(text_keys([label.text for label in labels]))
    allowed = frozenset(learnt_as(label_name(label), source.rules) or "" for label in source.labels)
    teachers = {} if source.machine is None else source.machine.teachers
    rows: list[_Row] = []
    dropped = Counter(shard.dropped)
    for record in held:
        label = record.content
        if isinstance(label, MachineLabel):
            key, learnt = next(keys), machine_label_by_rules(label, source.rules)
            found = RETIRED_LABEL if learnt is None else _row(record, learnt, key, teachers, allowed, barred)
            if isinstance(found, _Row):
                rows.append(found)
            else:
                dropped[REASON + found] += 1
        elif isinstance(label, str):
            dropped[REASON + label] += 1
    return rows, dict(dropped)


def _row(
    record: LastMachineRecord,
    label: MachineLabel,
    key: bytes,
    teachers: Mapping[str, float],
    allowed: Collection[str],
    barred: Collection[str],
) -> _Row | str:
    if is_barred(label.text, key, barred):
        return BARRED
    if label.teacher not in teachers:
        return OTHER_TEACHER
    scores = scores_of(label, allowed)
    if isinstance(scores, str):
        return scores
    name = label_name(label.label or "")
    return _Row((record.partition, record.offset), label.text, label.teacher, name, scores)


def _with_rows(  # noqa: PLR0917
    parts: Parts,
    merged: Merged,
    topic: str,
    rows: Sequence[_Row],
    keys: Sequence[bytes],
    origins: tuple[str, ...],
    teachers: Mapping[str, float],
    exchange: Exchange,
    splitting: Splitting,
    most_labels: int | None,
) -> Parts:
    """``parts`` with this rank's ``rows`` of machine labels, whose texts have ``keys``; unproven ones are divided."""
    classes = frozenset(name for row in rows for name in row.scores)
    labels = tuple(sorted(frozenset(parts.labels).union(*exchange.gather(classes, frozenset[str]))))
    # Before there is a cell for each text and label.
    check_labels(labels, most_labels)
    taught = _taught(rows, labels, teachers, origins)
    digests = exchange.gather(taught_digests(taught, keys), list[str])
    every = _joined(digests)
    parts = msgspec.structs.replace(
        parts,
        labels=labels,
        unlearnt=tuple(name for name in parts.unlearnt if name not in labels),
        digest=digest_with(parts.digest, every),
        machine_rows=len(every),
        taught=taught,
    )
    if not parts.unproven:
        if merged.totals[Part.TEST.value]:
            return parts
        require_rows(topic, merged.totals)
    of = [splitting.part_of(key) for key in keys]
    at = {part: [place for place, found in enumerate(of) if found is part] for part in PARTS}
    totals = sum(
        (Counter(one) for one in exchange.gather({part.value: len(at[part]) for part in PARTS}, dict[str, int])),
        Counter[str](),
    )
    if not all(totals[part.value] for part in PARTS):
        raise DatasetError(
            f"{topic} holds no label of a person, and {len(every):,} machine-labelled texts leave a part of training, "
            "validation and test without rows. Let the teacher label more texts, or publish labels of people"
        )
    held = {part: _rows([rows[place] for place in at[part]]) for part in (Part.VALID, Part.TEST)}
    return msgspec.structs.replace(
        parts,
        split=msgspec.structs.replace(parts.split, valid=held[Part.VALID], test=held[Part.TEST]),
        taught=taught.take(at[Part.TRAIN]),
        machine_rows=totals[Part.TRAIN.value] + totals[Part.VALID.value],
    )


def _taught(
    rows: Sequence[_Row], labels: Sequence[str], teachers: Mapping[str, float], origins: tuple[str, ...]
) -> Taught:
    places = {name: place for place, name in enumerate(labels)}
    probabilities = np.zeros((len(rows), len(labels)), np.float32)
    for row, scores in zip(rows, probabilities, strict=True):
        scores[[places[name] for name in row.scores]] = list(row.scores.values())
    weights = np.array([teachers[row.teacher] for row in rows], np.float32)
    return Taught(
        texts=tuple(row.text for row in rows),
        classes=tuple(labels),
        probabilities=probabilities,
        origins=origins,
        weights=None if all(weight == 1 for weight in teachers.values()) else weights,
    )


def _rows(rows: Sequence[_Row]) -> Rows:
    return Rows(tuple(row.text for row in rows), tuple(row.name for row in rows))


def _disagreements(keys: Sequence[bytes], names: Sequence[str], people: Mapping[bytes, str | None]) -> int:
    """How many rows have another label than people gave the text, where people agree on one."""
    pairs = ((people.get(key), name) for key, name in zip(keys, names, strict=True))
    return sum(true is not None and true != name for true, name in pairs)


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    return [one for part in parts for one in part]
