"""Record sets in columns, beside aiokafka's reading of the same bytes."""

from __future__ import annotations

import gc
import struct
import weakref
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.aio.record_sets import ZSTD
from headrace.kafka.aio.records import _Fetched
from headrace.kafka.columns import Columns, parse
from headrace.kafka.interface import Discarded, FetchedRecord, size_of
from headrace.model.checksums import CRC32, CRC32C, by_tables, checksum
from headrace.model.utf8 import is_utf8
from tests.support.raw_batches import CODECS, _varint, raw_batch, raw_record

NAME = TopicPartition("classify.requests", 3)
LIMIT = 10_000
PARTS = st.one_of(st.none(), st.binary(max_size=300))
HEADERS = st.lists(st.tuples(st.text(max_size=9), PARTS), max_size=3)
RECORDS = st.lists(st.tuples(PARTS, PARTS, HEADERS, st.integers(0, 2**40)), min_size=1, max_size=12)


def fetched(made: list[tuple[Any, ...]]) -> list[FetchedRecord]:
    return [
        FetchedRecord(*NAME, 5 + 2 * at, time, key, value, tuple(headers))
        for at, (key, value, headers, time) in enumerate(made)
    ]


def moved(batch: bytes, first: int, attributes: int = 0) -> bytes:
    """``batch`` as the broker stores it from the offset ``first`` on, with more ``attributes``."""
    raw = bytearray(batch)
    struct.pack_into(">q", raw, 0, first)
    struct.pack_into(">h", raw, 21, struct.unpack_from(">h", raw, 21)[0] | attributes)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


class Position:
    """An assignment of one partition, as a FetchResult sees it."""

    active = True
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _name: Any) -> Position:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def read(raw: bytes, *, columns: bool, most: int, position: int = 0) -> tuple[list[FetchedRecord], Any, list[Any]]:
    """All records of a set as a consumer gets them, the positions in between, and how it ended."""
    state = Position(position)
    chunk = PartitionRecords(NAME, MemoryRecords(raw), [], position, None, None, True, READ_COMMITTED)
    sets = _Fetched({}, LIMIT, in_columns=columns)
    if columns or any(batch[22] & 7 for batch in split(raw)):
        sets._raw[NAME] = raw
    result = FetchResult(NAME, assignment=state, partition_records=chunk, backoff=0)
    sets[NAME] = result
    records: list[FetchedRecord] = []
    ended: list[Any] = []
    try:
        while result.has_more():
            got = result.getall(most)
            assert len(got) <= most
            records += list(got)
    except Exception as error:  # noqa: BLE001 - compared
        ended.append((type(error), str(error)))
    return records, state.position, [*ended, sets.unreadable]


def split(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at + 61 <= len(raw):
        end = at + 12 + struct.unpack_from(">i", raw, at + 8)[0]
        if end <= at:
            break
        found.append(raw[at:end])
        at = end
    return found


def built(made: list[tuple[Any, ...]], first: int, codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for at, (key, value, headers, time) in enumerate(made):
        assert builder.append(at, timestamp=time, key=key, value=value, headers=headers)
    return moved(bytes(builder.build()), first)


@given(RECORDS)
def test_columns_of_records_are_these_records(made):
    records = fetched(made)
    columns = Columns.of(records)
    assert list(columns) == records
    assert columns.sizes.tolist() == [size_of(record) for record in records]
    assert columns.crcs().tolist() == [zlib.crc32(record.value or b"") for record in records]
    assert [columns[-1], columns[0]] == [records[-1], records[0]]
    assert Columns.of(columns) is columns
    places = np.arange(len(records))[::-2]
    assert columns.values(places) == [records[place].value for place in places]


@given(RECORDS, st.lists(st.integers(0, 12), max_size=3))
def test_parts_of_columns_are_parts_of_their_records_and_join_again(made, cuts):
    records = [*fetched(made)[:-1], FetchedRecord(*NAME, 99, 7, b"k", b"", (), Discarded(300_000_000, 4242))]
    columns = Columns.of(records)
    ends = sorted({0, *(cut for cut in cuts if cut < len(records)), len(records)})
    parts = [columns[begin:end] for begin, end in pairwise(ends)]
    assert [list(part) for part in parts] == [records[begin:end] for begin, end in pairwise(ends)]
    joined = Columns.joined(parts)
    assert list(joined) == records
    assert joined.crcs()[-1] == 4242


@given(st.lists(st.sampled_from([(), (("a", b"1"),), (("a", b"2"),), (("b", None), ("a", b"1"))]), min_size=1))
def test_records_of_one_kind_have_the_same_headers(headers):
    columns = Columns.of(fetched([(None, b"v", one, 0) for one in headers]))
    kinds, first = columns.header_kinds()
    assert [columns.headers(first[kind]) for kind in kinds.tolist()] == headers
    assert len(first) == len(set(headers))


def test_records_whose_headers_all_differ_are_each_of_their_own_kind():
    columns = Columns.of(fetched([(None, b"v", [("trace", b"%d" % at)], 0) for at in range(50)]))
    assert columns.header_kinds()[1] == list(range(50))


def test_joined_columns_hold_no_bytes_of_other_records():
    columns = Columns.of(fetched([(None, b"x" * 1000, [], 0)] * 100))
    assert len(Columns.joined([columns[10:12], columns[12:13]]).data) == 3000


@given(st.lists(RECORDS, min_size=1, max_size=4), st.sampled_from((0, *CODECS)), st.integers(1, 9), st.integers(0, 30))
def test_a_set_in_columns_holds_what_aiokafka_reads(batches, codec, most, position):
    raw, first = b"", 0
    for made in batches:
        raw += built(made, first, codec)
        first += len(made) + 2  # compaction leaves gaps
    assert read(raw, columns=True, most=most, position=position) == read(
        raw, columns=False, most=most, position=position
    )
    parsed = parse(NAME, raw, 0, position)
    assert parsed.at == (0 if codec else len(raw))


def test_records_are_parsed_without_an_object_for_each(monkeypatch):
    monkeypatch.setattr(Columns, "record", None)
    raw = built([(None, b"a", [], 0)] * 50, 0) + built([(b"k", b"b", [("h", b"v")], 0)] * 50, 50, ZSTD)
    sets = _Fetched({NAME: raw}, LIMIT, in_columns=True)
    chunk = PartitionRecords(NAME, MemoryRecords(raw), [], 0, None, None, True, READ_COMMITTED)
    sets[NAME] = result = FetchResult(NAME, assignment=Position(0), partition_records=chunk, backoff=0)
    found = [result.getall(1000), result.getall(1000)]
    assert [type(one) for one in found] == [Columns, Columns]
    assert [len(one) for one in found] == [50, 50]
    assert not result.has_more()


@pytest.mark.parametrize("position", [0, 9])
def test_a_record_set_is_freed_with_its_last_record_or_when_it_is_dropped(position):
    raw = built([(None, b"a", [], 0)] * 5, 0)
    chunk = PartitionRecords(NAME, MemoryRecords(raw), [], 0, None, None, True, READ_COMMITTED)
    sets = _Fetched({NAME: raw}, LIMIT, in_columns=True)
    sets[NAME] = result = FetchResult(NAME, assignment=Position(position), partition_records=chunk, backoff=0)
    freed = [weakref.ref(chunk), weakref.ref(result)]
    gc.disable()
    try:
        assert len(result.getall(10)) == (0 if position else 5)
        del chunk, result, sets[NAME]
        assert [one() for one in freed] == [None, None]
    finally:
        gc.enable()


ODD = {
    "a control batch": lambda: moved(raw_batch([raw_record(0, b"", key=b"\0\0\0\1")]), 10, 0x30),
    "a transaction": lambda: moved(raw_batch([raw_record(0, b"a")]), 10, 0x10),
    "the time of the append": lambda: moved(raw_batch([raw_record(0, b"a")]), 10, 0x08),
    "a delete horizon": lambda: moved(raw_batch([raw_record(0, b"a")]), 10, 0x40),
    "a name that is no text": lambda: moved(raw_batch([raw_record(0, b"a", headers=[(b"\xff", b"v")])]), 10),
    "a bomb": lambda: moved(raw_batch([raw_record(0, b"\0" * 2 * LIMIT)], codec=ZSTD), 10),
    "an unknown codec": lambda: moved(raw_batch([raw_record(0, b"a")]), 10, 7),
    "a record that is too long": lambda: moved(raw_batch([_varint(99) + raw_record(0, b"a")[1:]]), 10),
    "a record that is too short": lambda: moved(raw_batch([_varint(6) + raw_record(0, b"a")[1:]]), 10),
    "bytes behind the records": lambda: moved(raw_batch([raw_record(0, b"a") + b"\0"]), 10),
    "a negative count of headers": lambda: moved(raw_batch([_varint(7) + b"\0\0\0\1\1\1\1"]), 10),
    "a key of -2": lambda: moved(raw_batch([_varint(6) + b"\0\0\0\3\1\0"]), 10),
    "a huge number": lambda: moved(raw_batch([_varint(15) + b"\0" + b"\xff" * 9 + b"\1\0\1\1\0"]), 10),
    "the wrong checksum": lambda: moved(raw_batch([raw_record(0, b"a")]), 10)[:-1] + b"\1",
    "no record": lambda: moved(raw_batch([raw_record(0, b"a")])[:57] + b"\0\0\0\0", 10),
    "half of it": lambda: raw_batch([raw_record(0, b"a" * 99)])[:80],
}


@pytest.mark.parametrize("odd", ODD)
def test_what_no_kernel_reads_ends_as_with_aiokafka_and_its_neighbours_are_there(odd):
    before, behind = built([(None, b"x", [], 3)] * 3, 0), built([(None, b"y", [], 4)] * 3, 20)
    middle = bytearray(ODD[odd]())
    if odd == "no record":
        struct.pack_into(">i", middle, 8, len(middle) - 12)
        middle = bytearray(moved(bytes(middle), 10))
    raw = before + bytes(middle) + (b"" if odd == "half of it" else behind)
    ours, theirs = read(raw, columns=True, most=100), read(raw, columns=False, most=100)
    if theirs[2][:-1]:  # aiokafka raises, and the records before are lost with it until they are fetched again
        assert [record.value for record in ours[0]] == [b"x"] * 3
        assert ours[1:] == (3, theirs[2])
    else:
        assert ours == theirs


@given(RECORDS, st.data())
def test_rubbish_in_a_batch_ends_as_with_aiokafka(made, data):
    raw = bytearray(built(made, 0))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(61, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytearray(moved(bytes(raw), 0))
    ours, theirs = (read(bytes(raw), columns=columns, most=100) for columns in (True, False))
    if theirs[2][:-1]:
        assert [kind for kind, _ in ours[2][:-1]] == [kind for kind, _ in theirs[2][:-1]]
    else:
        assert ours == theirs


@pytest.mark.parametrize("checksum", [checksum, by_tables], ids=["of this processor", "of any"])
@given(data=st.binary(max_size=99), begin=st.integers(0, 9))
def test_checksums_are_those_of_zlib_and_of_kafka(checksum, data, begin):
    array = np.frombuffer(data, np.uint8)
    begin = min(begin, len(data))
    assert checksum(array, begin, len(data), CRC32) == zlib.crc32(data[begin:])
    assert checksum(array, begin, len(data), CRC32C) == calc_crc32c(data[begin:])


@given(st.one_of(st.binary(max_size=9), st.text(max_size=9).map(str.encode)), st.binary(max_size=2))
def test_text_is_what_python_decodes(text, more):
    for data in (text, text + more, more + text, text[1:]):
        try:
            data.decode()
        except UnicodeDecodeError:
            expected = False
        else:
            expected = True
        assert is_utf8(np.frombuffer(data, np.uint8), 0, len(data)) == expected
