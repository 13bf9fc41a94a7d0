"""Texts, lengths, keys and rubbish, each for itself."""

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_load.workload.recording import Recording, Row, read_recording, write_recording
from headrace_load.workload.requests import keys_of, recorded_sizes
from headrace_load.workload.spec import (
    Backlog,
    Badness,
    FileTexts,
    LogNormalLength,
    MadeTexts,
    NoKeys,
    PackageTexts,
    Recorded,
    RecordedKeys,
    UniqueKeys,
    Workload,
    WorkloadError,
    ZipfKeys,
)
from headrace_load.workload.texts import load_texts, lognormal, parse_request, resized, rubbish
from headrace_schemas.codec import decode_request, encode_request
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type, read_timeout_ms
from headrace_schemas.records import ClassifyRequest

KINDS = Badness.__args__  # type: ignore[attr-defined]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
QUICK = settings(max_examples=100, deadline=None)


@QUICK
@given(TEXTS, st.integers(0, 300))
def test_a_resized_text_has_its_size_but_for_a_split_character(text, size):
    found = resized(text.encode(), size)
    repeated = (text + " ") * (size + 1) if text else ""
    assert repeated.startswith(found)
    if text:
        left = size - len(found.encode())
        assert 0 <= left <= 3
        assert left < len(repeated[len(found)].encode())  # the next character would not have fitted


def test_lengths_drawn_have_their_median_spread_and_bound():
    lengths = LogNormalLength(median=200, sigma=0.5, most=1000)
    drawn = lognormal(lengths, 50_000, np.random.default_rng(1))
    assert np.median(drawn) == pytest.approx(200, rel=0.02)
    assert np.std(np.log(drawn)) == pytest.approx(0.5, rel=0.03)
    assert drawn.min() >= 1
    assert drawn.max() == 1000
    assert set(lognormal(LogNormalLength(median=7, sigma=0), 9, np.random.default_rng(1)).tolist()) == {7}


def test_recorded_lengths_are_beside_their_arrivals_or_drawn():
    recording = Recording(at=np.arange(4.0), sizes=np.array([5, 6, 7, 8]), keys=(None,) * 4)
    numbers = np.array([3, 1])
    assert recorded_sizes(recording, numbers, np.random.default_rng(1), same=True).tolist() == [8, 6]
    drawn = recorded_sizes(recording, np.arange(4000), np.random.default_rng(1), same=False)
    assert Counter(drawn.tolist()).keys() == {5, 6, 7, 8}


def with_keys(keys, arrivals=None) -> Workload:
    return Workload(arrivals=arrivals or Backlog(requests=9), texts=MadeTexts(), keys=keys)


def test_unique_keys_differ_and_no_keys_are_none():
    numbers = np.arange(1000)
    assert len(set(keys_of(with_keys(UniqueKeys()), np.random.default_rng(1))(numbers))) == 1000
    assert set(keys_of(with_keys(NoKeys()), np.random.default_rng(1))(numbers)) == {None}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.floats(0, 2), st.integers(0, 1000))
def test_keys_come_as_often_as_zipf_says(count, exponent, seed):
    keys = keys_of(with_keys(ZipfKeys(keys=count, exponent=exponent)), np.random.default_rng(seed))(np.arange(20_000))
    found = Counter(keys)
    weights = np.arange(1, count + 1) ** -exponent
    for rank, share in enumerate(weights / weights.sum(), 1):
        assert abs(found[b"k%d" % rank] - 20_000 * share) < 6 * np.sqrt(20_000 * share) + 1
    assert sum(found.values()) == 20_000
    assert found.keys() <= {b"k%d" % rank for rank in range(1, count + 1)}


def test_recorded_keys_are_beside_their_arrivals(tmp_path):
    path = str(tmp_path / "busy.jsonl")
    write_recording([Row(0.2, 5, "bb"), Row(0.1, 4), Row(0.3, 6, "cc")], tmp_path / "busy.jsonl")
    numbers = np.array([2, 0, 1])
    beside = keys_of(with_keys(RecordedKeys(path=path), Recorded(path=path)), np.random.default_rng(1))
    assert beside(numbers) == [b"cc", None, b"bb"]
    drawn = keys_of(with_keys(RecordedKeys(path=path)), np.random.default_rng(1))
    assert set(drawn(np.arange(500))) == {None, b"bb", b"cc"}


def test_a_recording_reads_back_in_the_order_of_time(tmp_path):
    path = tmp_path / "busy.jsonl"
    write_recording([Row(0.25, 5, "bb", text="hello"), Row(0.0, 4, bad=True)], path)
    found = read_recording(str(path))
    assert found.at.tolist() == [0.0, 0.25]
    assert found.sizes.tolist() == [4, 5]
    assert found.keys == (None, b"bb")


@pytest.mark.parametrize("content", [b"", b'{"at": 1}', b"\xff", b'{"at":2,"bytes":1}\n{"at":1,"bytes":1}'])
def test_what_is_no_recording_is_refused(tmp_path, content):
    path = tmp_path / "busy.jsonl"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=r"busy\.jsonl"):
        read_recording(str(path))


@QUICK
@given(TEXTS, st.sampled_from(KINDS))
def test_rubbish_is_refused_for_what_it_is(text, kind):
    value, headers = rubbish(kind, text)
    with pytest.raises(WireError):
        read_and_decode(value, headers)
    assert parse_request(value, headers) == kind
    assert value is None or len(value) < 1024 * 1024


def read_and_decode(value, headers):
    decode_request(value, content_type(headers))
    read_timeout_ms(headers)


def test_the_largest_rubbish_still_fits_a_record():
    value, _ = rubbish("too-large", "\x01" * 65_535)
    assert value is not None
    assert len(value) < 1024 * 1024


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        (b"plain", (("content-type", b"text/plain"),), ClassifyRequest(text="plain")),
        (encode_request(ClassifyRequest(text="a")), (("timeout-ms", b"500"),), ClassifyRequest(text="a")),
        (b'{"text": 5}', (), "no-text"),
        (b"{}", (("content-type", b"image/png"),), "bad-header"),
        (msgspec.json.encode({"text": "a", "id": "x" * 2000}), (), "too-large"),
    ],
)
def test_records_of_others_are_judged(value, headers, expected):
    assert parse_request(value, headers) == expected


def test_texts_of_a_file_are_its_rows_or_lines(tmp_path):
    rows, lines = tmp_path / "rows.jsonl", tmp_path / "lines.txt"
    rows.write_text('{"body": "première"}\n{"other": 1}\n{"body": ""}\n{"body": "second"}\n', encoding="utf-8")
    lines.write_text("première\n\nsecond\n", encoding="utf-8")
    assert load_texts(FileTexts(path=str(rows), field="body"), 1) == ["première", "second"]
    assert load_texts(FileTexts(path=str(lines)), 1) == ["première", "second"]


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b'{"body": "x"}'), ("a.jsonl", b"{"), ("a.txt", b"\n"),
                                               ("a.txt", b"\xff"), ("a.txt", None)])  # fmt: skip
def test_a_file_without_texts_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WorkloadError, match=name):
        load_texts(FileTexts(path=str(path)), 1)


def test_the_package_has_its_articles():
    texts = load_texts(PackageTexts(), 1)
    assert len(texts) == 2225
    assert all(texts)


def test_made_texts_are_of_zipfs_words_and_the_same_for_a_seed():
    made = MadeTexts(words=500, distinct=400, bytes=300)
    texts = load_texts(made, 7)
    assert texts == load_texts(made, 7)
    assert texts != load_texts(made, 8)
    assert {len(text.encode()) for text in texts} == {300}
    assert len(set(texts)) == 400
    words = Counter(word for text in texts for word in text.split()[:-1])
    assert len(words) <= 500
    (_, first), (_, second), *_ = words.most_common()
    assert first / words.total() == pytest.approx(1 / sum(1 / rank for rank in range(1, 501)), rel=0.1)
    assert first / second == pytest.approx(2, rel=0.2)
