"""Record sets by our own walk, beside aiokafka's; and bombs in all of Kafka's compressions."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.aio import record_sets
from headrace.kafka.aio.record_sets import SNAPPY, ZSTD, Walk, opened
from headrace.kafka.aio.records import _Batches, _TooLongError
from headrace.kafka.interface import Discarded, FetchedRecord, TopicPartition
from tests.support.raw_batches import CODECS, raw_batch, raw_record

NAME = TopicPartition("classify.requests", 3)
LIMIT = 10_000
VALUES = st.one_of(st.none(), st.binary(max_size=300))
RECORDS = st.lists(st.tuples(VALUES, VALUES, st.lists(st.tuples(st.text(max_size=9), VALUES), max_size=3)), max_size=20)


def walked(raw: bytes, offset: int = 0, limit: int = LIMIT) -> list[FetchedRecord]:
    return [record for record in Walk(raw, NAME, offset, limit=limit).steps if record is not None]


def theirs(records: MemoryRecords) -> list[tuple[object, ...]]:
    found = []
    while records.has_next():
        found += [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records.next_batch()]
    return found


def legacy_set(values: list[bytes | None], *, magic: int, codec: int) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 30)
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=1_000 + offset, key=b"key-%d" % offset, value=value)
    raw = bytearray(builder.build())
    if codec:
        # The broker gives the wrapper the offset of its last message.
        struct.pack_into(">q", raw, 0, 100 + len(values) - 1)
    return bytes(raw)


@given(records=RECORDS, codec=st.sampled_from((0, *CODECS)))
def test_a_walk_finds_what_aiokafka_finds(records, codec) -> None:
    made = [
        raw_record(at, value, key=key, headers=[(name.encode(), held) for name, held in headers])
        for at, (key, value, headers) in enumerate(records)
    ]
    raw = raw_batch(made, codec=codec) if made else b""
    expected = theirs(MemoryRecords(raw))
    assert [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in walked(raw)] == expected
    assert theirs(_Batches(raw, LIMIT)) == expected


@pytest.mark.parametrize(("magic", "codec"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)])
def test_message_sets_of_older_formats_are_walked_too(magic, codec) -> None:
    raw = legacy_set([b"a", None, b"c" * 50], magic=magic, codec=codec)
    found = [(r.offset, r.key, r.value) for r in walked(raw)]
    assert found == [(offset, key, value) for offset, _, key, value, _ in theirs(MemoryRecords(raw))]
    assert found == [(offset, key, value) for offset, _, key, value, _ in theirs(_Batches(raw, LIMIT))]
    assert [record.timestamp for record in walked(raw)] == ([-1] * 3 if magic == 0 else [1000, 1001, 1002])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("part", ["value", "key", "header"])
def test_what_grows_past_the_limit_is_known_by_key_size_and_crc_and_its_neighbours_stay(codec, part) -> None:
    large = bytes(range(256)) * 400
    parts = {"key": b"k", "headers": [(b"tenant", b"shop")], "value": b"v"}
    parts |= {"value": large} if part == "value" else {"key": large} if part == "key" else {"headers": [(b"h", large)]}
    bomb = raw_record(1, parts["value"], key=parts["key"], headers=parts["headers"])
    raw = raw_batch([raw_record(0, b"a"), bomb, raw_record(2, b"c")], codec=codec)
    first, second, third = walked(raw)
    assert (first.value, first.discarded, third.value, third.discarded) == (b"a", None, b"c", None)
    assert second.value == b""
    assert second.discarded.crc == zlib.crc32(parts["value"])
    assert len(large) < second.discarded.size < len(large) + 100
    assert second.key == (None if part == "key" else b"k")
    assert second.headers == (() if part == "header" else (("tenant", b"shop"),))
    assert [record.offset for record in walked(raw, offset=2)] == [2]


@pytest.mark.parametrize(("magic", "codec"), [(0, 1), (1, 1), (1, 2), (1, 3)])
def test_so_is_it_in_older_formats(magic, codec) -> None:
    large = bytes(range(256)) * 400
    first, second, third = walked(legacy_set([b"a", large, b"c"], magic=magic, codec=codec))
    assert (first.value, second.value, third.value) == (b"a", b"", b"c")
    assert (second.key, second.discarded) == (b"key-1", Discarded(second.discarded.size, zlib.crc32(large)))


@pytest.mark.parametrize("codec", CODECS)
def test_aiokafka_is_handed_no_batch_that_grows_past_the_limit(codec) -> None:
    raw = raw_batch([raw_record(0, b"\0" * 2 * LIMIT)], codec=codec)
    with pytest.raises(_TooLongError):
        iter(_Batches(raw, LIMIT).next_batch())
    small = raw_batch([raw_record(at, b"\0" * 50) for at in range(100)], codec=codec)
    assert len(theirs(_Batches(small, LIMIT))) == 100


def test_a_long_batch_of_small_records_is_walked_in_steps(monkeypatch) -> None:
    monkeypatch.setattr(record_sets, "STEP", 50_000)
    raw = raw_batch([raw_record(at, b"%d" % at * 500) for at in range(500)], codec=ZSTD)
    steps = list(Walk(raw, NAME, 0, limit=LIMIT).steps)
    assert [record.offset for record in steps if record is not None] == list(range(500))
    assert steps.count(None) > 5


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_torn_is_refused_in_words(codec) -> None:
    raw = raw_batch([raw_record(0, b"%d" % number * 9) for number in range(999)], codec=codec)
    torn = bytearray(raw[: len(raw) // 2])
    struct.pack_into(">i", torn, 8, len(torn) - 12)
    with pytest.raises(CorruptRecordException, match=r"can't be unpacked|ends inside a record"):
        walked(bytes(torn))
    with pytest.raises(CorruptRecordException):
        theirs(_Batches(bytes(torn), 1 << 20))


def test_a_length_that_snappy_lies_about_is_not_allocated() -> None:
    with pytest.raises(Exception, match=r"can't hold 4294967280"):
        opened(SNAPPY, b"\xf0\xff\xff\xff\x0f" + b"\0" * 40)(10)


PEAK = """
import resource, sys, zlib
from headrace.kafka.aio.records import _Batches, _TooLongError
from headrace.kafka.aio.record_sets import Walk
from headrace.kafka.interface import TopicPartition
limit, raw = 16 << 20, sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    iter(_Batches(raw, limit).next_batch())
except _TooLongError:
    pass
(record,) = [one for one in Walk(raw, TopicPartition("t", 0), 0, limit=limit).steps if one is not None]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, record.discarded.crc, record.key)
"""


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_of_150_megabytes_takes_a_fraction_of_them(codec) -> None:
    size = 150_000_000
    bomb = raw_batch([raw_record(0, b"\0" * size, key=b"k")], codec=codec)
    done = subprocess.run([sys.executable, "-c", PEAK], input=bomb, capture_output=True, check=True, timeout=600)
    grown, crc, key = re.fullmatch(rb"(\d+) (\d+) (b'k')\n", done.stdout).groups()
    crc_of_zeros = 0
    for _ in range(150):
        crc_of_zeros = zlib.crc32(b"\0" * 1_000_000, crc_of_zeros)
    assert (int(crc), key) == (crc_of_zeros, b"b'k'")
    # Kilobytes. The packed bytes are there twice, of snappy 7 MB.
    assert int(grown) * 1024 < 80_000_000
