"""When a training begins, rule by rule."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.training_rules import Awaited, Facts, Limits, awaited, reason_to_train

LIMITS = Limits(
    least_rows=100,
    new_labels=1000,
    growth=0.1,
    drift=0.25,
    drift_new_labels=20,
    erasures=5,
    age=3600.0,
    settle=5.0,
    retry=900.0,
)
QUIET = Facts(
    rows=10_000,
    new=0,
    erased=0,
    trained=True,
    age_s=60.0,
    quiet_s=100.0,
    waiting_s=100.0,
    drift=None,
    order=None,
    failed_s=None,
)


def reason(limits: Limits = LIMITS, **facts: object) -> str | None:
    return reason_to_train(msgspec.structs.replace(QUIET, **facts), limits)


def test_nothing_new_is_no_reason_however_old_or_drifted_the_champion_is():
    assert reason(age_s=1e9, drift=9.0) is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"new": 1000}, "1000 new labels"),
        ({"rows": 550, "new": 50}, "50 new labels, 10 % of those before"),
        ({"rows": 100, "new": 100, "trained": False}, "the first 100 labels"),
        ({"new": 20, "drift": 0.25}, "drift: PSI 0.25"),
        ({"erased": 5}, "5 erased labels"),
        ({"new": 1, "age_s": 3600.0}, "3600 s since the last snapshot, and 1 changes"),
        ({"rows": 0, "order": "new classes", "quiet_s": 0.0}, "ordered: new classes"),
    ],
)
def test_each_rule_names_its_reason(facts, said):
    assert reason(**facts) == said


@pytest.mark.parametrize(
    "facts",
    [
        {"rows": 10**5, "new": 999},
        {"rows": 1099, "new": 99},
        {"rows": 99, "new": 99, "trained": False},
        {"new": 19, "drift": 0.25},
        {"new": 20, "drift": 0.24},
        {"erased": 4},
        {"new": 1, "age_s": 3599.0},
    ],
)
def test_just_short_of_a_limit_is_no_reason(facts):
    assert reason(**facts) is None


@pytest.mark.parametrize(
    ("without", "facts"),
    [
        ("new_labels", {"rows": 10**6, "new": 1000}),
        ("growth", {"rows": 550, "new": 50}),
        ("drift", {"new": 20, "drift": 9.0}),
        ("erasures", {"erased": 50}),
        ("age", {"new": 1, "age_s": 1e9}),
    ],
)
def test_a_rule_without_a_limit_is_out_of_use(without, facts):
    assert reason(**facts) is not None
    assert reason(msgspec.structs.replace(LIMITS, **{without: None}), **facts) is None


def test_a_burst_of_labels_is_let_come_but_not_for_ever():
    assert reason(new=5000, quiet_s=4.9, waiting_s=59.0) is None
    assert reason(new=5000, quiet_s=5.0, waiting_s=5.0) is not None
    assert reason(new=5000, quiet_s=0.1, waiting_s=60.0) is not None


def test_a_failed_training_is_tried_again_for_new_labels_or_after_a_while():
    assert reason(failed_s=10.0, new=500, drift=9.0, erased=9, age_s=1e9) is None
    assert reason(failed_s=10.0, new=1000) == "1000 new labels"
    assert reason(failed_s=900.0) == "again, 900 s after a failure"


@given(
    st.builds(
        Facts,
        rows=st.integers(0, 10**6),
        new=st.integers(0, 10**6),
        erased=st.integers(0, 100),
        trained=st.booleans(),
        age_s=st.floats(0, 1e9),
        quiet_s=st.floats(0, 100),
        waiting_s=st.floats(0, 1000),
        drift=st.none() | st.floats(0, 10),
        order=st.none(),
        failed_s=st.none() | st.floats(0, 1e4),
    )
)
def test_without_enough_labels_nothing_but_an_order_begins_a_training(facts):
    few = msgspec.structs.replace(facts, rows=min(facts.rows, LIMITS.least_rows - 1))
    assert reason_to_train(few, LIMITS) is None
    assert reason_to_train(msgspec.structs.replace(few, order="now"), LIMITS) == "ordered: now"


def waits(limits: Limits = LIMITS, **facts: object) -> Awaited:
    return awaited(msgspec.structs.replace(QUIET, **facts), limits)


def test_too_few_labels_are_counted_with_what_brings_more_and_what_begins_without():
    what = waits(rows=60, new=60, trained=False)
    assert (what.rule, what.missing, what.stuck) == ("rows", 40, True)
    assert what.why.startswith("60 of the 100 labels that a training begins at (trainer.least_rows)")
    assert "`headrace labels publish FILE` brings the 40 that are missing" in what.why
    assert "models train --now" in what.why
    assert "models train --now" not in waits(rows=0, trained=False).why, "there is nothing to train with"


def test_labels_that_are_coming_are_let_come():
    what = waits(new=5000, quiet_s=1.0, waiting_s=1.0)
    assert (what.rule, what.missing) == ("settle", 0)
    assert waits(new=0, quiet_s=1.0, waiting_s=1.0).rule == "new", "none are coming: a trainer has just read the topic"


def test_a_failed_training_names_when_it_is_tried_again():
    assert "in 600 s (trainer.retry)" in waits(failed_s=300.0).why


def test_after_a_training_the_nearer_of_the_rules_about_new_labels_counts():
    assert (waits(rows=500, new=10).missing, waits(rows=50_000, new=10).missing) == (39, 990)
    without = msgspec.structs.replace(LIMITS, new_labels=None, growth=None)
    assert waits(without).rule == "order"


@given(rows=st.integers(0, 3000), new=st.integers(0, 3000), trained=st.booleans())
def test_so_many_labels_as_are_missing_begin_a_training(rows, new, trained):
    facts = {"rows": max(rows, new), "new": new, "trained": trained}
    if reason(**facts) is not None:
        return
    missing = waits(**facts).missing
    assert missing > 0
    assert reason(rows=facts["rows"] + missing, new=new + missing, trained=trained) is not None
