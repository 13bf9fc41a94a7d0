"""From what each rank has read to one data set: which labels count, which rows are in which part.

Every rank tells the others a few numbers about each of its records, decides for all records alike, and keeps its own
rows. So the rows are the same however many ranks there are, and no text leaves the rank that read it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.labels import LastRecord, Shard
from headrace.learning.data.split import (
    OWN_TEST_FILE,
    PARTS,
    Part,
    Parts,
    Split,
    Splitting,
    place,
    shard,
    split,
    whole,
    with_taught,
)
from headrace.learning.data.taught import read_taught
from headrace.learning.data.validation import (
    KEY_BYTES,
    NO_LABEL,
    RowStatus,
    clean,
    key_halves,
    last_of_ids,
    number_keys,
    number_labels,
    text_keys,
    validate,
)
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import FileSource
from headrace_schemas.records import LabelledText

_NO_PART = -1
NO_ROWS = Rows((), ())


class _Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank tells of its n records: arrays of n, in the order of the records.

    ``places`` (n, 2): partition and offset; ``times``: timestamps in ms. ``ids`` and ``texts`` (n, 2): halves of
    digests. ``labels``: numbers of ``names``, NO_LABEL for no label or no words. ``readable``: it is a labelled text.
    ``tombstones``: it erases. ``counts``: how many records of its id and partition are no tombstones. ``draws``: what
    decides on a text's part, which without the key of the split only its own rank knows. ``held``: its text is held
    out.
    """

    places: NDArray[np.int64]
    times: NDArray[np.int64]
    ids: NDArray[np.uint64]
    texts: NDArray[np.uint64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    readable: NDArray[np.bool_]
    tombstones: NDArray[np.bool_]
    counts: NDArray[np.int64]
    draws: NDArray[np.uint64]
    held: NDArray[np.bool_]


class _Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank tells of its own rows, once it knows the records of all ranks."""

    labels: frozenset[str]
    named: frozenset[str]
    rows: dict[str, int]
    dropped: dict[str, int]
    digests: dict[int, str]


class Merged(msgspec.Struct, frozen=True):
    """The rank's ``parts``, how many rows each part has on all ranks, and what people said of texts: the label that a
    training takes by the first KEY_BYTES of the text's key, None where it takes none.
    """

    parts: Parts
    totals: dict[str, int]
    people: dict[bytes, str | None]


def merge_labels(
    shard: Shard, exchange: Exchange, splitting: Splitting, *, held_out: Collection[bytes] = frozenset()
) -> Parts:
    """Make this rank's rows of the data set that the shards of all ranks are together, divided by ``splitting``.

    A collective.

    Of the records of one id the last counts (:func:`~headrace.learning.data.validation.last_of_ids`). Equal texts of
    different ids are cleaned as :func:`~headrace.learning.data.validation.validate` says, in the order of (partition,
    offset), which is the order of the rows too. The digest is of ids and labelled texts as they stand after the last
    record of each id: neither compaction nor the number of ranks changes it.

    A row whose text has a key in ``held_out`` is in no part. All ranks place all rows, so that they come to the same
    where a label has few.

    ``dropped`` counts ``erased`` ids, ``replaced`` records (of an id that has a later label), ``empty``,
    ``duplicate``, ``conflicting`` and ``holdout`` rows, records that can't be read by the code of their error, and
    what the shards count. Raises DatasetError, on every rank, when a part has no row on any.
    """
    merged = merge_all(shard, exchange, splitting, held_out=held_out)
    require_rows(shard.topic, merged.totals)
    return merged.parts


def merge_all(
    shard: Shard, exchange: Exchange, splitting: Splitting, *, held_out: Collection[bytes] = frozenset()
) -> Merged:
    """As :func:`merge_labels`, with what is to be known of all rows, and whether or not there are any."""
    labelled = [record.content if isinstance(record.content, LabelledText) else None for record in shard.records]
    texts = ["" if one is None else one.text for one in labelled]
    labels = ["" if one is None else label_name(one.label) for one in labelled]
    keys = text_keys(texts, splitting.hashing)
    held = np.array([key in held_out for key in keys], np.bool_)
    told = exchange.gather(_columns(shard.records, keys, labels, splitting.draws(keys), held), _Columns)
    columns = _concatenate(told)
    ids = number_keys(columns.ids)
    last = last_of_ids(ids, columns.times, columns.places[:, 0])
    counted = last & columns.readable
    statuses = _validate(columns, counted)
    kept = counted & (statuses == RowStatus.KEPT)
    taken = kept & ~columns.held
    placing = place(columns.draws[taken], columns.labels[taken])
    parts = np.full(len(taken), _NO_PART)
    parts[taken] = placing.parts
    first = sum(len(one.labels) for one in told[: exchange.rank])
    own = slice(first, first + len(keys))
    own_counted, own_parts = counted[own], parts[own]

    places = {part: np.flatnonzero(own_parts == number).tolist() for number, part in enumerate(PARTS)}
    rows = {part: Rows(tuple(texts[i] for i in of), tuple(labels[i] for i in of)) for part, of in places.items()}
    faults = (record.content for record, is_last in zip(shard.records, last[own], strict=True) if is_last)
    counts = np.bincount(statuses[own][own_counted], minlength=len(RowStatus))
    summaries = exchange.gather(
        _Summary(
            labels=frozenset(rows[Part.TRAIN].labels) | frozenset(rows[Part.VALID].labels),
            named=frozenset(
                label for label, is_counted in zip(labels, own_counted, strict=True) if label and is_counted
            ),
            rows={part.value: len(of) for part, of in rows.items()},
            dropped=Counter(shard.dropped)
            + Counter({status.name.lower(): int(counts[status]) for status in RowStatus if status != RowStatus.KEPT})
            + Counter(holdout=int((kept & columns.held)[own].sum()))
            + Counter(fault for fault in faults if isinstance(fault, str)),
            digests=_digests(shard.records, own_counted),
        ),
        _Summary,
    )
    totals = sum((Counter(summary.rows) for summary in summaries), Counter())
    dropped = sum((Counter(summary.dropped) for summary in summaries), _superseded(columns, ids, last))
    digests = sorted(pair for summary in summaries for pair in summary.digests.items())
    learnt = frozenset[str]().union(*(summary.labels for summary in summaries))
    parts_here = Parts(
        split=Split(
            train=rows[Part.TRAIN],
            valid=rows[Part.VALID],
            test=rows[Part.TEST],
            held_out=0,
            moved=placing.moved(columns.labels[taken], columns.names),
        ),
        labels=tuple(sorted(learnt)),
        unlearnt=tuple(sorted(frozenset[str]().union(*(summary.named for summary in summaries)) - learnt)),
        rows=totals[Part.TRAIN.value] + totals[Part.VALID.value],
        digest=hashlib.sha256(msgspec.msgpack.encode(digests)).hexdigest(),
        dropped=dict(sorted(dropped.items())),
        splitting=splitting.id,
        test_places=tuple((shard.records[i].partition, shard.records[i].offset) for i in places[Part.TEST]),
    )
    return Merged(parts_here, dict(totals), _people(columns, counted, statuses))


def _columns(
    records: Sequence[LastRecord],
    keys: Sequence[bytes],
    labels: Sequence[str],
    draws: NDArray[np.uint64],
    held: NDArray[np.bool_],
) -> _Columns:
    numbers, names = number_labels(keys, labels)
    places = np.array([(record.partition, record.offset) for record in records], np.int64).reshape(len(records), 2)
    tombstones = np.array([record.content is None for record in records], np.bool_)
    return _Columns(
        places=places,
        times=np.array([record.timestamp_ms for record in records], np.int64),
        ids=key_halves([hashlib.blake2b(record.id, digest_size=KEY_BYTES).digest() for record in records]),
        texts=key_halves(keys),
        labels=numbers,
        names=names,
        readable=np.array([isinstance(record.content, LabelledText) for record in records], np.bool_),
        tombstones=tombstones,
        counts=np.array([record.before for record in records], np.int64) + ~tombstones,
        draws=draws,
        held=held,
    )


def _concatenate(told: Sequence[_Columns]) -> _Columns:
    """The records of all ranks one after another, with labels numbered alike."""
    names = tuple(sorted(frozenset().union(*(one.names for one in told))))
    number = {name: place for place, name in enumerate(names)}

    def renumbered(one: _Columns) -> NDArray[np.int64]:
        # The last entry is what NO_LABEL, an index from the end, finds.
        return np.array([*(number[name] for name in one.names), NO_LABEL], np.int64)[one.labels]

    return _Columns(
        places=np.concatenate([one.places for one in told]),
        times=np.concatenate([one.times for one in told]),
        ids=np.concatenate([one.ids for one in told]),
        texts=np.concatenate([one.texts for one in told]),
        labels=np.concatenate([renumbered(one) for one in told]),
        names=names,
        readable=np.concatenate([one.readable for one in told]),
        tombstones=np.concatenate([one.tombstones for one in told]),
        counts=np.concatenate([one.counts for one in told]),
        draws=np.concatenate([one.draws for one in told]),
        held=np.concatenate([one.held for one in told]),
    )


def _validate(columns: _Columns, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The status on each record that is ``counted``, validated in the order of partition and offset."""
    chosen = np.flatnonzero(counted)
    chosen = chosen[np.lexsort((columns.places[chosen, 1], columns.places[chosen, 0]))]
    statuses = np.full(len(counted), RowStatus.EMPTY, np.int64)
    statuses[chosen] = validate(number_keys(columns.texts[chosen]), columns.labels[chosen])
    return statuses


def _people(columns: _Columns, counted: NDArray[np.bool_], statuses: NDArray[np.int64]) -> dict[bytes, str | None]:
    """The label of each text that anybody labelled, by the text's key; None where no label is that of most."""
    labelled = counted & (columns.labels != NO_LABEL)
    halves, taken = columns.texts.astype("<u8"), statuses == RowStatus.KEPT
    people: dict[bytes, str | None] = {halves[row].tobytes(): None for row in np.flatnonzero(labelled)}
    for row in np.flatnonzero(labelled & taken):
        people[halves[row].tobytes()] = columns.names[columns.labels[row]]
    return people


def _superseded(columns: _Columns, ids: NDArray[np.int64], last: NDArray[np.bool_]) -> Counter[str]:
    """How many ids are erased, and how many records of the others are not their id's last."""
    records = np.bincount(ids, weights=columns.counts).astype(np.int64)
    alive = ids[last & ~columns.tombstones]
    return Counter(erased=int((last & columns.tombstones).sum()), replaced=int((records[alive] - 1).sum()))


def _digests(records: Sequence[LastRecord], counted: NDArray[np.bool_]) -> dict[int, str]:
    """The SHA-256 of the counted records of each partition that has any, in their order."""
    digests = {}
    for partition, of in groupby(zip(records, counted, strict=True), key=lambda pair: pair[0].partition):
        contents = [(one.id, one.content) for one, is_counted in of if is_counted]
        if contents:
            digests[partition] = hashlib.sha256(msgspec.msgpack.encode(contents)).hexdigest()
    return digests


def require_rows(topic: str, totals: Mapping[str, int]) -> None:
    """Raise DatasetError where a part has no row on any rank."""
    empty = [part.value for part in Part if not totals.get(part.value)]
    if empty:
        raise DatasetError(
            f"{topic}: {sum(totals.values())} clean rows leave none for {' and '.join(empty)}."
            " A label of three rows is the least that can be split: publish more labels"
        )


def read_files(source: FileSource, exchange: Exchange, splitting: Splitting) -> Parts:
    """Read, clean and split the files as a whole by ``splitting``, and keep every ``world``-th row of each part.

    Raises DatasetError for what can't be read, or leaves a part without rows.
    """
    taught = None if source.taught is None else read_taught(Path(source.taught))
    if source.data is None:
        if taught is None:
            raise DatasetError("no file of labelled texts was given, and no machine labels either")
        nothing = whole(Split(train=NO_ROWS, valid=NO_ROWS, test=NO_ROWS, held_out=0), {}, splitting.id)
        return shard(with_taught(nothing, taught, splitting, ()), exchange.rank, exchange.world)
    data = _read_rows(source, source.data)
    cleaned = clean(data)
    validating = _read_rows(source, source.valid) if source.valid is not None else None
    valid = None if validating is None else clean(validating)
    test = _read_rows(source, source.test) if source.test is not None else None
    parts = split(cleaned, valid=valid, test=test, splitting=splitting, folds=taught is not None)
    dropped = {
        "empty": cleaned.empty,
        "duplicate": cleaned.duplicate,
        "conflicting": cleaned.conflicting,
        "held out": parts.held_out,
    }
    identity = splitting.id if test is None else OWN_TEST_FILE
    named = {label for rows in (data, validating, test) if rows is not None for label in rows.labels if label}
    all_rows = whole(parts, dropped, identity, named)
    if taught is not None:
        given = [rows for rows in (data, validating, test) if rows is not None]
        own = {part for part, rows in ((Part.VALID, validating), (Part.TEST, test)) if rows is not None}
        human = {key for rows in given for key in text_keys(rows.texts, splitting.hashing)}
        all_rows = with_taught(all_rows, taught, splitting, human, own)
    return shard(all_rows, exchange.rank, exchange.world)


def _read_rows(source: FileSource, path: str) -> Rows:
    return read_rows(
        Path(path), text_column=source.text_column, label_column=source.label_column, reading=source.reading
    )
