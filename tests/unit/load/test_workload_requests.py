"""The requests of a workload, put together; and its file."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_load.workload.recording import Row, write_recording
from headrace_load.workload.requests import Planned, requests
from headrace_load.workload.spec import (
    AsTheyAre,
    Backlog,
    Bad,
    Constant,
    Deadlines,
    FixedLength,
    LogNormalLength,
    MadeTexts,
    Poisson,
    Recorded,
    RecordedKeys,
    RecordedLength,
    Workload,
    WorkloadError,
    ZipfKeys,
    read_workload,
    write_workload,
)
from headrace_load.workload.texts import load_texts, parse_request
from headrace_schemas.codec import decode_request
from headrace_schemas.headers import content_type, read_timeout_ms
from headrace_schemas.records import ClassifyRequest

EXAMPLES = Path(__file__).parents[3] / "load" / "workloads"
TEXTS = [f"text number {number} of the workload: ça va" for number in range(17)]


def workload(**parts) -> Workload:
    return Workload(
        **{"arrivals": Backlog(requests=2000), "texts": MadeTexts(), "warm_up": 0.0, "seconds": 1.0, **parts}
    )


def all_of(of: Workload, texts=TEXTS, *, ids: bool = False) -> list[Planned]:
    return [each for producer in range(of.producers) for each in requests(of, producer, texts, ids=ids)]


def text_of(planned: Planned) -> str:
    return decode_request(planned.value, content_type(planned.headers)).text


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([Poisson(rate=700), Constant(rate=700), Backlog(requests=700)]),
    st.integers(1, 4),
    st.sampled_from([AsTheyAre(), FixedLength(bytes=50), LogNormalLength(median=40, sigma=0.5)]),
    st.sampled_from(["application/json", "application/msgpack", "text/plain"]),
    st.sampled_from([None, Deadlines(timeout_ms=500, share=0.5)]),
    st.booleans(),
)
def test_requests_are_good_numbered_once_and_made_again_by_their_seed(arrivals, producers, lengths, kind, late, ids):
    of = workload(arrivals=arrivals, producers=producers, lengths=lengths, content_type=kind, deadlines=late)
    ids = ids and kind != "text/plain"
    found = all_of(of, ids=ids)
    assert found == all_of(of, ids=ids)
    assert len({each.number for each in found}) == len(found) > 500
    for each in found:
        assert each.good
        request = decode_request(each.value, content_type(each.headers))
        assert request.id == (str(each.number) if ids else None)
        assert read_timeout_ms(each.headers) in ({None, 500} if late else {None})
        assert content_type(each.headers) == kind
    if isinstance(lengths, FixedLength):
        assert {len(text_of(each).encode()) for each in found} <= {49, 50}


def test_every_text_comes_equally_often_whatever_the_producers():
    one, three = (
        {each.number: each.value for each in all_of(workload(arrivals=Backlog(requests=170), producers=producers))}
        for producers in (1, 3)
    )
    assert one == three
    assert set(Counter(one.values()).values()) == {10}


def test_another_seed_is_another_workload():
    first, second = (all_of(workload(arrivals=Poisson(rate=500), seed=seed)) for seed in (1, 2))
    assert [each.due_s for each in first] != [each.due_s for each in second]


def test_producers_draw_independently_of_each_other():
    of = workload(arrivals=Poisson(rate=500), keys=ZipfKeys(keys=50), producers=2)
    first, second = (list(requests(of, producer, TEXTS, ids=False)) for producer in (0, 1))
    assert not {each.due_s for each in first} & {each.due_s for each in second}
    assert [each.key for each in first][:100] != [each.key for each in second][:100]


def test_a_change_of_one_part_leaves_the_others():
    of = workload(arrivals=Poisson(rate=500), keys=ZipfKeys(keys=50))
    before, after = all_of(of), all_of(msgspec.structs.replace(of, deadlines=Deadlines(timeout_ms=9, share=0.3)))
    assert [(each.due_s, each.value, each.key) for each in before] == [(e.due_s, e.value, e.key) for e in after]


def test_shares_of_deadlines_and_rubbish_are_what_was_asked():
    of = workload(
        arrivals=Backlog(requests=20_000),
        deadlines=Deadlines(timeout_ms=250, share=0.25),
        bad=Bad(share=0.2, kinds=("not-json", "null", "bad-header")),
        content_type="application/msgpack",
    )
    found = all_of(of)
    bad = [each for each in found if not each.good]
    assert len(bad) == pytest.approx(4000, rel=0.1)
    kinds = Counter(parse_request(each.value, each.headers) for each in bad)
    assert kinds.keys() == {"not-json", "null", "bad-header"}
    assert min(kinds.values()) > 1100
    good = [each for each in found if each.good]
    assert sum(read_timeout_ms(each.headers) == 250 for each in good) == pytest.approx(4000, rel=0.1)
    assert all(isinstance(parse_request(each.value, each.headers), ClassifyRequest) for each in good)


def test_a_recording_keeps_length_and_key_beside_the_arrival(tmp_path):
    path = tmp_path / "busy.jsonl"
    write_recording([Row(number / 100, 10 + number, f"{number:x}") for number in range(90)], path)
    of = workload(
        arrivals=Recorded(path=str(path)),
        lengths=RecordedLength(path=str(path)),
        keys=RecordedKeys(path=str(path)),
        producers=2,
    )
    found = all_of(of, ["only letters and spaces here"])
    assert len(found) == 90
    for each in found:
        assert each.due_s == pytest.approx(each.number / 100)
        assert len(text_of(each)) == 10 + each.number
        assert each.key == b"%x" % each.number


def test_what_can_not_be_sent_is_said_before_the_run():
    with pytest.raises(WorkloadError, match="no place for the ids"):
        requests(workload(content_type="text/plain"), 0, TEXTS, ids=True)
    with pytest.raises(WorkloadError, match="at least one text"):
        requests(workload(), 0, [], ids=False)
    with pytest.raises(WorkloadError, match=r"70000 bytes.*\[lengths\]"):
        next(requests(workload(), 0, ["fine", "x" * 70_000], ids=True))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_an_example_can_be_published(path):
    of = msgspec.structs.replace(read_workload(path), producers=64)
    texts = load_texts(of.texts, of.seed)
    found = [each for each, _ in zip(requests(of, 63, texts, ids=False), range(300), strict=False)]
    assert len(found) == 300
    assert all(each.good == isinstance(parse_request(each.value, each.headers), ClassifyRequest) for each in found)


def test_a_workload_written_reads_back_with_paths_from_its_folder(tmp_path):
    of = workload(
        arrivals=Recorded(path="busy.jsonl", speed=2),
        lengths=RecordedLength(path="busy.jsonl"),
        keys=RecordedKeys(path="busy.jsonl"),
        deadlines=Deadlines(timeout_ms=500, share=0.125),
        bad=Bad(share=0.01, kinds=("null", "no-text")),
    )
    write_workload(of, tmp_path / "busy.toml", "What it is.")
    path = str(tmp_path / "busy.jsonl")
    assert read_workload(tmp_path / "busy.toml") == msgspec.structs.replace(
        of, arrivals=Recorded(path=path, speed=2), lengths=RecordedLength(path=path), keys=RecordedKeys(path=path)
    )


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        ('kind = "burst"\nrate = 1\nburst_rate = 2\nburst_seconds = 9\nevery = 9', "burst_seconds"),
        ('kind = "diurnal"\nlowest = 5\nhighest = 2\nperiod = 9', "lowest"),
        ('kind = "poisson"\nrates = 5', "rate"),
        ('kind = "poisson"\nrate = 0', "rate"),
    ],
)
def test_a_setting_that_can_not_be_is_named_with_its_file(tmp_path, arrivals, said):
    path = tmp_path / "wrong.toml"
    path.write_text(f'[texts]\nkind = "made"\n[arrivals]\n{arrivals}\n')
    with pytest.raises(WorkloadError, match=rf"wrong\.toml.*{said}"):
        read_workload(path)
