"""Requests read by kernels, beside the wire's own reading of the same bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.core.clock import believable
from headrace.kafka.interface import FetchedRecord, TopicPartition
from headrace.worker.dead_letter_records import Failure
from headrace.worker.partitions.partition import NEVER, Partition, Requests
from headrace.worker.request_values import CONDEMNED, EXPIRED, FAILED, ODD, value_reader
from headrace.worker.stages.batch import Slice
from headrace.worker.stages.decode import Decoded, admit, decode
from headrace_schemas.errors import BadHeaderError, WireError
from headrace_schemas.headers import (
    CONTENT_TYPE,
    EXPLAIN,
    JSON,
    MSGPACK,
    TEXT,
    TIMEOUT_MS,
    content_type,
    read_explain,
    read_timeout_ms,
)
from headrace_schemas.paths import RequestShape, compile_shape
from tests.support.mutations import examples, hostile
from tests.unit.fuzz.test_fuzz_wire import DOCUMENTS
from tests.unit.fuzz.test_fuzz_wire import headers as any_headers

NOW_MS = 1_764_000_000_000
SHAPES = {
    "ours": RequestShape(max_text_bytes=200),
    "flat": RequestShape(text_path="body", id_path="text", max_text_bytes=200),
    "deep": RequestShape(text_path="ticket.body", id_path="items.0.id"),
    "beside": RequestShape(text_path="ticket.body", id_path="ticket.id", max_text_bytes=200),
}
TEXTS = st.text(alphabet=st.sampled_from('ab "\\/\0\n\t\x7f\u0301\u2028ß你😀\ud7ff\U0010ffff'), max_size=60)
KEYS = st.sampled_from(["text", "id", "body", "texts", "", "tex\t", "ü"])
WHOLE = st.integers(-(2**63), 2**64 - 1)  # MessagePack has no larger ones
LEAVES = st.one_of(TEXTS, st.none(), st.booleans(), WHOLE, st.floats(), st.just([]), st.just({"text": "b"}))
FLAT = st.one_of(
    st.fixed_dictionaries({"text": TEXTS}, optional={"id": st.one_of(TEXTS, st.none()), "body": LEAVES}),
    st.fixed_dictionaries({"body": TEXTS}, optional={"text": st.one_of(TEXTS, st.integers(-9, 9)), "n": LEAVES}),
    st.dictionaries(KEYS, LEAVES, max_size=5),
)
PARTS = st.sampled_from(["ticket", "body", "items", "0", "id", "ü"])
INNER = st.recursive(
    st.one_of(LEAVES, st.text(alphabet="ab", max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(PARTS, inner, max_size=3)),
    max_leaves=6,
)
NESTED = st.one_of(
    st.fixed_dictionaries(
        {"ticket": st.fixed_dictionaries({"body": TEXTS}, optional={"id": LEAVES, "n": INNER})},
        optional={
            "items": st.one_of(INNER, st.fixed_dictionaries({"0": st.fixed_dictionaries({"id": LEAVES})})),
            "n": INNER,
        },
    ),
    st.dictionaries(PARTS, INNER, max_size=4),
)
SPACES = st.sampled_from(["", " ", "\n", "\t \r\n", "\v", "\0", ",", "}"])


def spaced(document: object, spaces: Sequence[str]) -> bytes:
    """As Python writes JSON, all but ASCII escaped, with blanks around."""
    first, last, comma, colon = spaces
    body = json.dumps(document, separators=(f"{comma},{comma}", f"{colon}:{colon}"))
    return f"{first}{body}{last}".encode("utf-8", "surrogatepass")


VALUES = st.one_of(
    st.none(),
    FLAT.map(msgspec.json.encode),
    FLAT.map(msgspec.msgpack.encode),
    NESTED.map(msgspec.json.encode),
    NESTED.map(msgspec.msgpack.encode),
    st.builds(spaced, st.one_of(FLAT, NESTED), st.tuples(SPACES, SPACES, SPACES, SPACES)),
    hostile([*examples("classify-request"), *DOCUMENTS]),
    TEXTS.map(str.encode),
    st.lists(
        st.sampled_from(
            [b"{", b"}", b'"text"', b'"id"', b":", b",", b'"a"', b"null", b"nul", b"\\", b'"', b"\\u00e9", b"\\ud83d",
             b"\\ude00", b'"\xc3\xa9"', b'"\xff"', b"1", b"01", b"-1", b" ", b"\x82", b"\xa4text", b"\xa1a", b"\xc0",
             b"\xd9\x01b", b"\xda\0\x01c", b"\xa2id"]
        ),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip
TYPES = st.sampled_from(
    [
        JSON,
        MSGPACK,
        TEXT,
        "text/json",
        "application/json; charset=utf-8",
        "application/x+json",
        "text/html",
        "json;",
        "",
    ]
).map(str.encode)
TIMEOUTS = [b"1", b"604800000", b"604800001", b"0", b"", b"x", b"+1", None]
HEADERS = st.one_of(
    st.just(()),
    st.lists(
        st.one_of(
            st.tuples(st.just(CONTENT_TYPE), st.one_of(TYPES, TYPES, st.none())),
            st.tuples(st.just(TIMEOUT_MS), st.sampled_from(TIMEOUTS)),
            st.tuples(st.just(EXPLAIN), st.sampled_from([b"1", b"0", b"2"])),
            st.tuples(st.sampled_from(["traceparent", "tenant", "content-typ", "Timeout-ms"]), st.just(b"v")),
        ),
        max_size=4,
    ).map(tuple),
    any_headers,
)  # fmt: skip
STAMPS = st.sampled_from([NOW_MS, NOW_MS - 1000, -1, 0, NOW_MS * 1000, 2**63 - 1])
RECORDS = st.lists(st.tuples(VALUES, HEADERS, STAMPS), min_size=1, max_size=6)


AS_MSGPACK = ((CONTENT_TYPE, MSGPACK.encode()),)
DEPTHS = (31, 32, 33, 400)
NUMBERS = [
    b'{"ticket":{"body":"a","id":%b},"text":"a","n":[%b,{"x":%b}]}' % (number, number, number)
    for number in (
        *(b"0", b"-0", b"-1", b"01", b"-", b"1.", b".5", b"1.5", b"-1.50", b"1e", b"1e5", b"1E+05", b"1e-99", b"1e400"),
        *(
            b"9" * 18,
            b"-" + b"9" * 18,
            b"9" * 19,
            b"9" * 30,
            b"1." + b"3" * 30,
            b"NaN",
            b"true",
            b'"\\ud800"',
            b'"\\/"',
        ),
    )
]
REPEATED = [
    b'{"ticket":{"body":"a","id":"1"},"ticket":{"body":"b"}}',
    b'{"ticket":{"body":"a","body":"b","id":"1"}}',
    b'{"ticket":{"body":"a","id":"1","id":null}}',
    b'{"ticket":{"body":"a"},"n":{"body":"b","ticket":{"body":"c"}}}',
    b'{"ticket":{"n":{"body":"b"},"body":"a"},"body":"c","id":7}',
    b'{"ticket":{}}',
    b'{"ticket":[{"body":"a"}]}',
    b'{"ticket":{"body":"a"},"items":["x"],"text":"b"}',
    b'{"ticket":{"body":"a"},"items":{"0":{"id":12}}}',
    b'{"ticket":{"body":"a"},"items":{"0":"x"}}',
    b'{"ticket":{"body":"a"},"items":null,"n":[[],{},[{}]]}',
    b'{"ticket":{"body":"a"},"n":[1,]}',
    b'{"ticket":{"body":"a"},"n":{"x":1,}}',
    b'{"ticket":{"body":"a"},"n":{"x" 1}}',
    b'{"ticket":{"body":"a"},"n":[1 2]}',
    b'{"ticket":{"body":"a"}]}',
    b'{"ticket":{"body":"a"},"n":[}',
    b'{"ticket":{"body":"a"}}}',
]


def fetched(made: Sequence[tuple[bytes | None, tuple[tuple[str, bytes | None], ...], int]]) -> list[FetchedRecord]:
    return [
        FetchedRecord("requests", 0, 10 + 3 * place, stamp, b"k", value, headers)
        for place, (value, headers, stamp) in enumerate(made)
    ]


def decoded(requests: Requests, shape: RequestShape, *, ready_ms: float = 0.0, condemned: int | None = None) -> Decoded:
    loop = asyncio.new_event_loop()
    try:
        partition = Partition(TopicPartition("requests", 0))
        piece = Slice(partition, requests, 9, None, condemned, None, loop.create_future())
        return decode([piece], ready_ms, value_reader(shape))
    finally:
        loop.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@settings(max_examples=150, deadline=None)
@given(RECORDS)
@example([(value, (), 0) for value in NUMBERS])
@example([(value, (), 0) for value in REPEATED])
@example([(msgspec.msgpack.encode({"n": dict.fromkeys(map(str, range(20))), "ticket": {"body": "a"}}), AS_MSGPACK, 0)])
@example([(b'{"ticket":{"body":"a"},"n":%b}' % (b"[" * deep + b"]" * deep), (), 0) for deep in DEPTHS])
@example(
    [
        (b"\x82\xa1n%b\xa6ticket\x81\xa4body\xa1a" % (b"\x91" * deep + b"\x01"), AS_MSGPACK, 0)
        for deep in (31, 32, 33, 400)
    ]
)
@example([(b'{"text":"a","id":""}', (), 0), (b'{"text":"b","id":"q\\"7"}', (), 0)])
@example([(b'{"text":"a"}', ((CONTENT_TYPE, b"text/%d" % number),), 0) for number in range(20)])
def test_a_kernel_reads_what_the_wire_reads(shape, made):
    records = fetched(made)
    found = decoded(admit(records, 0.0, NOW_MS), shape)
    (column,) = found.columns
    read = compile_shape(shape)
    explained = []
    for place, record in enumerate(records):
        try:
            read_timeout_ms(record.headers)
            kind, asks_why = content_type(record.headers), read_explain(record.headers)
            expected = read(record.value, kind)
            if asks_why:
                explained.append(int(column.texts[place]))
            fault = None
        except WireError as error:
            fault = Failure("decode", error.code, str(error))
        if fault is None:
            assert found.texts[column.texts[place]] == expected.text.encode()
            assert column.id(place) == expected.id
        else:
            assert column.texts[place] == FAILED
            assert column.failures[column.faults[place]] == fault
    assert found.explained == explained
    assert sorted(column.texts[column.texts >= 0].tolist()) == list(range(len(found.texts)))
    assert (column.faults[column.texts >= 0] == -1).all()


@given(RECORDS)
def test_a_request_expires_as_its_headers_say(made):
    records = fetched(made)
    requests = admit(records, 1.5, NOW_MS)
    earliest, latest = believable(NOW_MS)
    for place, record in enumerate(records):
        try:
            timeout_ms = read_timeout_ms(record.headers)
        except BadHeaderError:
            timeout_ms = None
            assert requests.forms[place] == ODD
        begun = record.timestamp if earliest <= record.timestamp <= latest else NOW_MS
        assert requests.expires_ms[place] == (NEVER if timeout_ms is None else begun + timeout_ms)
    assert requests.oldest() == (10, records[0].timestamp, 1.5)


def test_plain_requests_are_read_without_the_wire_and_in_their_order(monkeypatch):
    shape = RequestShape()
    monkeypatch.setattr("headrace.worker.request_values.compile_shape", lambda _: None)
    made = [
        (b'{"text":"a \\"b\\" \\u00e9 \\ud83d\\ude00\\n"}', ()),
        (b' { "id" : "7" , "text" : "\xc3\xa9" }\n', ((CONTENT_TYPE, b"application/json; charset=utf-8"),)),
        (b'{"text":"c","id":null,"at":1764000000000,"from":"shop","ok":true}', ((TIMEOUT_MS, b"1000"),)),
        (msgspec.msgpack.encode({"text": "d" * 300, "id": "8"}), ((CONTENT_TYPE, MSGPACK.encode()),)),
        ("ß".encode(), ((CONTENT_TYPE, TEXT.encode()), ("tenant", b"shop"))),
    ]
    found = decoded(admit(fetched([(*one, NOW_MS) for one in made]), 0.0, NOW_MS), shape)
    assert list(found.texts) == ['a "b" é 😀\n'.encode(), "é".encode(), b"c", b"d" * 300, "ß".encode()]
    (column,) = found.columns
    assert column.texts.tolist() == [0, 1, 2, 3, 4]
    assert [column.id(place) for place in range(5)] == [None, "7", None, "8", None]


@pytest.mark.parametrize("write", [msgspec.json.encode, msgspec.msgpack.encode])
def test_requests_at_paths_inside_a_team_s_records_are_read_without_the_wire(monkeypatch, write):
    shape = RequestShape(text_path="body.message.text", id_path="body.number")
    monkeypatch.setattr("headrace.worker.request_values.compile_shape", lambda _: None)
    kind = MSGPACK if write is msgspec.msgpack.encode else JSON
    beside = {"at": 1.5e3, "tags": ["a", {"b": [None, -7]}], "from": 'the "shop"', "text": "not this"}
    made = [
        {"body": {"message": {"text": "é", "lang": "fr"}, "number": "n1"}, **beside},
        {**beside, "body": {**beside, "message": {**beside, "text": "b"}}},
    ]
    if kind == JSON:
        made.append({"body": {"number": 12, "message": {"text": 'c "d"\n'}}})
    found = decoded(
        admit(fetched([(write(one), ((CONTENT_TYPE, kind.encode()),), NOW_MS) for one in made]), 0.0, NOW_MS), shape
    )
    (column,) = found.columns
    assert list(found.texts) == ["é".encode(), b"b", b'c "d"\n'][: len(made)]
    assert [column.id(place) for place in range(len(made))] == ["n1", None, "12"][: len(made)]


def test_what_has_expired_or_is_condemned_is_not_read():
    made = [(b"{", ((TIMEOUT_MS, b"1"),), NOW_MS - 5), (b"{", (), NOW_MS), (b'{"text":"a"}', (), NOW_MS)]
    found = decoded(admit(fetched(made), 0.0, NOW_MS), RequestShape(), ready_ms=NOW_MS, condemned=13)
    (column,) = found.columns
    assert column.texts.tolist() == [EXPIRED, FAILED, 0]
    assert column.faults.tolist() == [-1, CONDEMNED, -1]
    assert column.failures[CONDEMNED].code == "kills-process"
    assert list(found.texts) == [b"a"]
