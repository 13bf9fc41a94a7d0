from __future__ import annotations

import io

import pytest
from rich.console import Console

from headrace_load.report.live import Rates, live, rates, share
from headrace_load.result import Progress


def moment(second: float, **changes) -> Progress:
    told = {
        "phase": "measuring",
        "elapsed_s": second,
        "whole_s": 35.0,
        "requests": None,
        "due": int(100 * second),
        "sent": int(100 * second),
        "acked": int(99 * second),
        "answered": int(90 * second),
        "late_p99_ms": 1.25,
        **changes,
    }
    return Progress(**told)


def told(moments: list[Progress], *, terminal: bool) -> str:
    out = io.StringIO()
    with live(Console(file=out, force_terminal=terminal, width=100), "steady [red]") as show:
        for one in moments:
            show(one)
    return out.getvalue()


def test_rates_are_between_the_first_and_the_last_report():
    assert rates([moment(1.0), moment(2.0), moment(5.0)]) == Rates(due=100.0, sent=100.0, acked=99.0, answered=90.0)
    assert rates([moment(1.0)]) == Rates()
    assert rates([moment(1.0), moment(1.0)]) == Rates()
    assert rates([moment(1.0, answered=None), moment(3.0)]).answered is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (moment(7.0), 0.2),
        (moment(70.0), 1.0),
        (moment(7.0, whole_s=None), None),
        (moment(7.0, whole_s=None, requests=1400), 0.45),
        (moment(7.0, whole_s=None, requests=1400, phase="publishing"), 0.5),
        (moment(7.0, whole_s=None, requests=1400, answered=None), 0.0),
    ],
)
def test_the_bar_is_of_time_or_of_a_backlogs_requests(now, expected):
    assert share(now) == expected


def test_without_a_terminal_there_is_a_line_every_five_seconds_and_at_each_phase():
    moments = [moment(0.0, phase="warm-up"), *(moment(float(second)) for second in range(1, 13))]
    lines = told(moments, terminal=False).splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "warm-up, 0 of 35 s",
        "measuring, 1 of 35 s",
        "measuring, 6 of 35 s",
        "measuring, 11 of 35 s",
    ]
    assert "sent 600 (100/s)" in lines[2]
    assert "lag 54" in lines[2]
    assert "late p99 1.25 ms" in lines[2]


def test_on_a_terminal_the_view_has_counts_rates_and_lag():
    text = told([moment(1.0), moment(2.0)], terminal=True)
    for shown in ("steady [red]", "measuring, 2 of 35 s", "answered", "180", "90", "lag", "1.25 ms"):
        assert shown in text


def test_what_nobody_reads_is_a_dash():
    assert "answered – (–/s)  lag –" in told([moment(1.0, answered=None)], terminal=False)
