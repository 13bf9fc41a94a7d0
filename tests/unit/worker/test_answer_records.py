"""The compiled writer's batches are those of the codec and of aiokafka's own builder, byte for byte."""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.kafka.aio.producer import PackedBuilder
from headrace.kafka.interface import Outgoing
from headrace.kafka.packed_records import packed_headers
from headrace.kafka.record_writing import spans_of
from headrace.worker.answer_records import FIRST_REASON, OTHER, AnswerColumns, AnswerWriter
from headrace.worker.request_values import EXPIRED
from headrace.worker.stages.infer import MICROS, in_micros
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, Status

VERSION, LABELS = 'v"1', ("sports", 'a "quoted" one', "경제", "", "long " * 2000)
REASONS = ("bad-bytes", "missing-text")
NOW_MS = 1_700_000_000_123


class Row(msgspec.Struct, frozen=True):
    """An answer to be written, ``step`` behind the one before it; ``other`` is its value where it is not plain."""

    label: int
    micros: int = MICROS
    crc: int = 0
    step: int = 1
    id: str | None = None
    key: bytes | None = None
    other: bytes = b""
    headers: tuple[tuple[str, bytes | None], ...] = ()


HEADERS = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=4), st.none() | st.binary(max_size=4)))
ROWS = st.builds(
    Row,
    label=st.integers(FIRST_REASON + 1 - len(REASONS), len(LABELS) - 1),
    # The score of a best label is at least 1 / labels; below a ten-thousandth the codec writes an exponent.
    micros=st.integers(100, MICROS),
    crc=st.integers(0, 2**32 - 1),
    step=st.integers(1, 2**40),
    id=st.none() | st.text(st.characters(codec="utf-8"), max_size=8),
    key=st.none() | st.binary(max_size=70),
    other=st.binary(max_size=70),
    headers=HEADERS.map(tuple),
)


def has_id(row: Row) -> bool:
    return row.id is not None and row.label > FIRST_REASON


def columns_of(rows: list[Row], after: int) -> AnswerColumns:
    blocks = list(dict.fromkeys(row.headers for row in rows))
    spans = partial(spans_of, count=len(rows))
    return AnswerColumns(
        (after + np.cumsum([row.step for row in rows])).astype(np.int64),
        after,
        np.array([row.crc for row in rows], np.uint32),
        np.array([row.label for row in rows], np.int32),
        np.array([row.micros for row in rows], np.int64),
        spans({at: msgspec.json.encode(row.id)[1:-1] for at, row in enumerate(rows) if has_id(row)}),
        spans({at: row.key for at, row in enumerate(rows) if row.key is not None}),
        spans({at: row.other for at, row in enumerate(rows) if row.label == OTHER}),
        np.array([blocks.index(row.headers) for row in rows], np.int32),
        [packed_headers(headers) for headers in blocks],
    )


def outgoing(rows: list[Row], after: int) -> list[Outgoing]:
    """The same answers by the codec."""
    answers = []
    for row in rows:
        offset = after + row.step
        result = ClassifyResult(
            offset=offset,
            after=after,
            crc=row.crc,
            status=Status.OK if row.label >= 0 else Status.EXPIRED if row.label == EXPIRED else Status.FAILED,
            version=VERSION,
            label=None if row.label < 0 else LABELS[row.label],
            score=None if row.label < 0 else row.micros / MICROS,
            id=row.id if has_id(row) else None,
            reason=REASONS[FIRST_REASON - row.label] if row.label <= FIRST_REASON else None,
        )
        value = row.other if row.label == OTHER else encode_result(result)
        answers.append(Outgoing(value, row.key, row.headers))
        after = offset
    return answers


def built(answers: list[Outgoing], batch_bytes: int, state: tuple[int, int, int]) -> list[bytes]:
    """The batches that aiokafka makes of ``answers``."""
    batches = []
    while answers:
        builder = BatchBuilder(batch_bytes, 0, is_transactional=0)
        taken = 0
        for answer in answers:
            headers = list(answer.headers)
            if builder.append(timestamp=NOW_MS, key=answer.key, value=answer.value, headers=headers) is None:
                break
            taken += 1
        builder._set_producer_state(*state)
        batches.append(bytes(builder._build()))
        answers = answers[taken:]
    return batches


@given(
    st.lists(ROWS, min_size=1, max_size=20),
    st.integers(-1, 2**62),
    st.integers(1, 3000),
    st.tuples(st.integers(-1, 2**40), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1)),
)
@example([Row(0, key=b"k" * 65536), Row(EXPIRED, key=b""), Row(1, id="")] * 3, -1, 1 << 19, (-1, -1, 0))
@example([Row(0, id='"\\\n\x00\x7f'), Row(OTHER, other=b"o" * 70_000)] * 2, 5, 1 << 16, (7, 1, 3))
@example([Row(4, id="i" * 9000, headers=(("h" * 300, b"v" * 20_000), ("h", None)))] * 200, 5, 1 << 19, (7, 1, 3))
@example([Row(FIRST_REASON, key=b"k"), Row(FIRST_REASON - 1), Row(EXPIRED, id="7")], 8, 1 << 19, (7, 1, 3))
@example([Row(0)] * 9000, -1, 1 << 19, (7, 1, 2**31 - 1))
def test_the_batches_are_those_of_the_codec_and_of_aiokafka_s_builder(rows, after, batch_bytes, state) -> None:
    answers = outgoing(rows, after)
    records = AnswerWriter(VERSION, LABELS, REASONS).write(columns_of(rows, after), batch_bytes=batch_bytes)
    batches = []
    for batch in records.batches:
        builder = PackedBuilder(batch)
        builder._time_ms = NOW_MS
        builder._set_producer_state(*state)
        batches.append(bytes(builder._build()))
        assert builder.size() == len(batches[-1])
    assert batches == built(answers, batch_bytes, state)
    assert (list(records), len(records)) == (answers, len(rows))


@given(st.lists(st.floats(0, 1, width=32), max_size=50))
def test_a_score_is_rounded_to_the_nearest_millionth(scores) -> None:
    micros = in_micros(np.array(scores, np.float32))
    assert all(abs(micro / MICROS - score) <= 0.5 / MICROS + 1e-12 for micro, score in zip(micros, scores, strict=True))
