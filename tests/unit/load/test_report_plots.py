from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest

from headrace_load.report.pictures import pictures, write_pictures
from headrace_load.result import Second, Stage
from tests.support.load_results import comparison_of, result_of


def size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_a_run_has_its_pictures_as_files(tmp_path):
    paths = write_pictures(result_of(), tmp_path / "made")
    assert [path.stem for path in paths] == ["latency", "latency-over-time", "rates", "stages", "batches", "memory"]
    for path in paths:
        width, height = size(path)
        assert width > 1000
        assert height > 200
        assert path.stat().st_size > 5000


def test_a_comparison_of_rates_far_apart_is_drawn_on_a_logarithmic_axis_and_near_ones_on_a_bar():
    far = {picture.name: picture.figure for picture in pictures(comparison_of({"a": 900.0, "b": 250_000.0}, rounds=2))}
    assert list(far) == ["rates", "cpu", "latency", "stages"]
    assert far["rates"].axes[0].get_xscale() == "log"
    near = {picture.name: picture.figure for picture in pictures(comparison_of({"a": 900.0, "b": 1000.0}, rounds=2))}
    assert near["rates"].axes[0].get_xscale() == "linear"
    assert near["rates"].axes[0].get_xlim()[0] == 0


def test_names_that_begin_with_an_underscore_or_hold_dollars_are_in_the_legend_as_they_are():
    names = {"_hidden": 1000.0, "$a_b$": 1100.0}
    latency = {one.name: one.figure for one in pictures(comparison_of(names, rounds=2))}["latency"]
    assert [text.get_text() for text in latency.legends[0].get_texts()] == list(names)


def test_contenders_whose_names_are_cut_alike_stay_apart():
    names = {f"a very long name that goes on and on {number}": 1000.0 + number for number in range(2)}
    stages = {one.name: one.figure for one in pictures(comparison_of(names, rounds=2))}["stages"]
    assert len(stages.axes[0].get_yticklabels()) == 2


def second(number: int, answered: int, due: int) -> Second:
    return Second(second=number, due=due, sent=due, answered=answered, lag=0, p50=1.0, p99=1.0, max=1.0)


@pytest.mark.parametrize(
    ("measured", "last"),
    [(3.0, 2), (2.4, 1), (4.0, 3)],
    ids=["answers behind the end", "an end within a second", "an end with a second"],
)
def test_a_second_that_the_run_ended_within_is_not_drawn_as_an_outage(measured, last):
    whole = tuple(second(number, 1000, 1000) for number in range(last + 1))
    part = () if measured == last + 1 == 4 else (second(last + 1, 3, 0),)
    result = msgspec.structs.replace(result_of(), seconds=measured, timeline=whole + part)
    rates = {one.name: one.figure for one in pictures(result)}["rates"]
    for line in rates.axes[0].get_lines():
        assert line.get_xdata()[-1] == last
        assert min(line.get_ydata()) == 1000


def test_a_run_shorter_than_a_second_is_drawn():
    result = msgspec.structs.replace(result_of(), seconds=0.3, timeline=(second(0, 10, 10),))
    assert "rates" in {one.name for one in pictures(result)}


def test_a_run_without_answers_has_no_pictures(tmp_path):
    assert write_pictures(result_of(measured=False), tmp_path) == []


@pytest.mark.parametrize("mean", [-0.5, 0.0])
def test_a_stage_that_clocks_make_less_than_nothing_is_drawn_as_nothing(mean):
    result = result_of()
    stages = (*result.stages[:-1], Stage(name="other", mean=mean, share=mean / result.to_append.mean))
    drawn = {one.name: one.figure for one in pictures(msgspec.structs.replace(result, stages=stages))}["stages"]
    assert min(patch.get_width() for patch in drawn.axes[0].patches) == 0
