from __future__ import annotations

import io

import msgspec
from rich.console import Console

from headrace_load.report.tables import middle, milliseconds, number, short, show, tables, verdict, verdict_of_all
from headrace_load.result import Comparison, Result
from tests.support.load_results import CONTENDERS, comparison_of, result_of

HOSTILE = "<script>alert(1)</script> [red]$a$[/red] \x1b[31m"


def printed(document: Result | Comparison) -> str:
    out = io.StringIO()
    show(Console(file=out, width=160), document)
    return out.getvalue()


def test_a_run_shows_its_figures_latencies_stages_cpu_and_audit():
    text = printed(result_of(rate=2000.0))
    for figure in ("2,000", "60,000", "1.20 s", "kafka", "30.0 %", "workers", "broker", "harness", "lost", "p99.9"):
        assert figure in text
    assert "The figures stand" in text
    assert "the broker's, at the append" in text


def test_a_refused_run_says_so_in_its_own_words():
    text = printed(result_of(refused="the producers were late: use more producers or another machine"))
    assert "No figure stands" in text
    assert "use more producers or another machine" in text
    assert "The figures stand" not in text


def test_a_failed_audit_lets_no_figure_stand():
    stand, why = verdict(result_of(lost=3))
    assert not stand
    assert "lost 3" in why


def test_time_stamps_of_the_worker_are_told_from_those_of_the_broker():
    created = msgspec.structs.replace(result_of(), append_clock="create")
    assert "LogAppendTime" in printed(created)


def test_a_run_without_answers_has_only_the_tables_it_has_rows_for():
    titles = [table.title for table in tables(result_of(measured=False))]
    assert titles == ["Figures", "CPU and memory", "Audit of the answer log"]


def test_an_audit_that_counts_the_warm_up_too_says_so():
    result = result_of()
    whole = msgspec.structs.replace(result.audit, answered=result.answered + 1203)
    note = next(one.note for one in tables(msgspec.structs.replace(result, audit=whole)) if "Audit" in one.title)
    assert "1,203 of the answers" in note
    same = msgspec.structs.replace(result.audit, answered=result.answered)
    note = next(one.note for one in tables(msgspec.structs.replace(result, audit=same)) if "Audit" in one.title)
    assert "warm-up" not in note


def test_stages_that_come_to_more_than_the_latency_say_by_how_much():
    result = result_of()
    stages = tuple(msgspec.structs.replace(stage, mean=1.5 * stage.mean) for stage in result.stages)
    note = next(one.note for one in tables(msgspec.structs.replace(result, stages=stages)) if "by stage" in one.title)
    assert "more than the mean latency" in note
    assert not next(one.note for one in tables(result) if "by stage" in one.title)


def test_every_row_has_a_cell_a_column():
    for document in (result_of(), comparison_of(CONTENDERS)):
        for table in tables(document):
            assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_comparison_shows_every_contender_with_median_ratio_and_interval():
    comparison = comparison_of(CONTENDERS)
    text = printed(comparison)
    for name, results in comparison.results.items():
        assert name in text
        rates = sorted(result.rate for result in results)
        assert number(rates[1]) in text
    assert "2.43 (2.28 to 2.58)" in text
    assert "lower" in text


def test_an_interval_that_holds_one_shows_no_difference():
    assert "no difference shown" in printed(comparison_of({"a": 1000.0, "b": 1010.0}))


def test_runs_without_verdict_are_left_out_of_the_medians_and_named():
    comparison = comparison_of({"a": 1000.0, "b": 1010.0}, refused="b")
    kept = [result.rate for result in comparison.results["b"][:2]]
    assert middle(comparison.results["b"], lambda result: result.rate) == sum(kept) / 2
    stand, why = verdict_of_all(comparison)
    assert not stand
    assert "b: 1 of 3" in why


def test_names_from_files_are_never_markup_nor_control_codes():
    result = result_of(name=HOSTILE)
    assert "[red]" in printed(result)
    assert "\x1b" not in printed(result)
    assert "\x1b" not in short(HOSTILE)


def test_figures_read_like_figures():
    assert [milliseconds(value) for value in (None, 0.4, 4.321, 43.21, 432.1, 43_210.0)] == [
        "–",
        "0.40 ms",
        "4.32 ms",
        "43.2 ms",
        "432 ms",
        "43.2 s",
    ]
    assert [number(value) for value in (0.76, 12.34, 5.0, 103_456.7)] == ["0.76", "12.3", "5", "103,457"]


def test_a_column_that_no_contender_has_is_left_out():
    comparison = comparison_of({"a": 1000.0, "b": 1010.0})
    drained = {
        name: tuple(msgspec.structs.replace(result, to_append=None, to_reader=None, used={}) for result in results)
        for name, results in comparison.results.items()
    }
    columns = tables(msgspec.structs.replace(comparison, results=drained))[0].columns
    assert columns == ("contender", "runs", "answers/s", "times the first")
