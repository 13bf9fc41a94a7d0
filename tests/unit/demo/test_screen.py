import io

import pytest
from rich.console import Console

from headrace.demo.screen import Place, closing, line, live, milliseconds, next_steps, table, view
from headrace.demo.stream import Ledger, Snapshot
from headrace_schemas.records import Status


def snapshot(elapsed_s: float = 4.0, **fields: object) -> Snapshot:
    given = {
        "seconds": 20.0,
        "answered": 200,
        "labels": (("sport", 150), ("money", 50)),
        "rate": 49.6,
        "p50": 0.0042,
        "p99": 0.123,
        "lag": 3,
        **fields,
    }
    return Snapshot(elapsed_s=elapsed_s, **given)


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def printed(on: Console) -> str:
    return on.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0.00012, "0.1 ms"), (0.0042, "4.2 ms"), (0.1234, "123 ms"), (2.5, "2,500 ms")]
)
def test_latencies_are_shown_in_milliseconds(seconds: float | None, shown: str) -> None:
    assert milliseconds(seconds) == shown


def test_the_figures_are_one_line() -> None:
    assert line(snapshot()) == "200 answers   50/s   p50 4.2 ms   p99 123 ms   lag 3"


def test_the_table_has_a_row_for_each_label_and_the_figures() -> None:
    on = console(terminal=False)
    on.print(table(snapshot(labels=(("[red]sport", 150), ("money", 50)))))
    shown = printed(on)
    assert "4 of 20 s" in shown
    assert "[red]sport │     150 │   75%" in shown, "a label is no markup"
    assert "money" in shown
    assert line(snapshot()) in shown


def test_a_stream_without_an_end_shows_how_long_it_goes_on() -> None:
    on = console(terminal=False)
    on.print(table(snapshot(61.2, seconds=None)))
    assert "61 s" in printed(on)
    assert " of " not in printed(on).splitlines()[0]


def test_of_many_labels_the_most_frequent_are_shown_and_the_others_added_up() -> None:
    on = console(terminal=False)
    labels = tuple((f"label-{number}", 10) for number in range(20))
    on.print(table(snapshot(labels=labels)))
    shown = printed(on)
    assert "label-11" in shown
    assert "label-12" not in shown
    assert "8 others │      80 │   40%" in shown


def test_a_table_can_be_shown_before_the_first_answer() -> None:
    on = console(terminal=False)
    on.print(table(snapshot(answered=0, labels=(), p50=None, p99=None)))
    assert "0 answers" in printed(on)


def test_without_a_terminal_there_is_a_plain_line_every_five_seconds() -> None:
    on = console(terminal=False)
    with live(on) as show:
        for tick in range(49):
            show(view(snapshot(tick * 0.25, lag=tick)))
    assert printed(on).splitlines() == [line(snapshot(lag=20)), line(snapshot(lag=40))]


def test_on_a_terminal_the_table_is_drawn_in_place() -> None:
    on = console(terminal=True)
    with live(on) as show:
        show(view(snapshot(1.0)))
        show(view(snapshot(2.0, answered=300)))
    shown = printed(on)
    assert "200 answers" in shown
    assert "300 answers" in shown
    assert "\x1b[1A" in shown, "the cursor goes up to draw over what was there"


def finished() -> Ledger:
    ledger = Ledger()
    ledger.published, ledger.answered, ledger.right, ledger.scored = 10_222, 10_222, 216, 222
    ledger.statuses.update({Status.OK: 10_222})
    return ledger


def test_the_closing_lines_have_accuracy_latency_and_audit() -> None:
    accuracy, latency, audit = closing(finished(), snapshot())
    assert accuracy == "accuracy on the held-out texts: 97.30% (216 of 222)"
    assert latency.startswith("latency of the stream: p50 4.2 ms, p99 123 ms\n")
    assert audit == "audit: published 10,222, answered 10,222, lost 0, repeated 0"


def test_answers_that_are_not_ok_are_named_in_the_audit() -> None:
    ledger = finished()
    ledger.statuses.update({Status.FAILED: 2, Status.EXPIRED: 1})
    assert closing(ledger, snapshot())[2].endswith("(of the answers: 1 expired, 2 failed)")


def test_the_next_steps_name_the_cluster_that_was_used_or_how_to_start_one() -> None:
    own = next_steps(Place(bootstrap=None, model="m.safetensors"))
    given = next_steps(Place(bootstrap="there:1", model="m.safetensors"))
    assert any(step.startswith("headrace broker") for step in own)
    assert not any(step.startswith("headrace broker") for step in given)
    assert "headrace --bootstrap there:1 worker --model m.safetensors --processes 2" in given


def test_what_to_try_next_fits_80_columns() -> None:
    for step in next_steps(Place(bootstrap=None, model="m")):
        assert len(f"  {step}") <= 80
