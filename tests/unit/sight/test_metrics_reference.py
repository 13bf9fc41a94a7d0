"""The page of metrics is current, and no name that was published vanishes without a word."""

from __future__ import annotations

import io

import msgspec

from headrace.sight import metrics_reference
from headrace.sight.metric_advice import ADVICE
from headrace.sight.metrics_reference import NAMES, Told, all_told, faults, main, names_after, page

METRIC = Told("headrace_a_total", "counter", ("why",), "Meaning.")


def test_the_page_and_the_list_are_current():
    said = io.StringIO()
    assert main(["--check"], said) == 0, said.getvalue()


def test_a_page_has_name_type_labels_meaning_and_what_to_do():
    assert "| `headrace_a_total` | counter | `why` | Meaning. | Look. |" in page(
        {"Worker": [METRIC]}, {"headrace_a_total": "Look."}
    )
    assert {"partition"} == set(next(one for one in all_told()["Worker"] if one.name == "headrace_lag_records").labels)


def test_a_name_that_is_gone_has_to_say_so():
    told, advice = {"Worker": [METRIC]}, {"headrace_a_total": "Look."}
    [fault] = faults(told, "headrace_a_total\nheadrace_old\n", advice)
    assert fault.startswith("headrace_old was published and is gone")
    assert list(faults(told, "headrace_old removed: use headrace_a_total\n", advice)) == []


def test_a_metric_without_advice_and_advice_without_a_metric_are_faults():
    other = msgspec.structs.replace(METRIC, name="headrace_b")
    [missing, stale] = faults({"Worker": [other]}, "", {"headrace_a_total": "Look."})
    assert "headrace_b: metric_advice.py does not say" in missing
    assert "headrace_a_total: metric_advice.py speaks of it" in stale


def test_writing_adds_names_and_takes_none_away():
    assert names_after("b removed: for c\n", {"a", "c"}) == "a\nb removed: for c\nc\n"


def test_a_vanished_name_fails_the_check_of_make_lint(tmp_path, monkeypatch):
    listed = tmp_path / "names.txt"
    listed.write_text(NAMES.read_text(encoding="utf-8") + "headrace_zz_total\n", encoding="utf-8")
    monkeypatch.setattr(metrics_reference, "NAMES", listed)
    said = io.StringIO()
    assert main(["--check"], said) == 1
    assert "headrace_zz_total was published and is gone" in said.getvalue()
    assert "headrace_lag_seconds" in ADVICE
