"""What the gate lets through, and what it says when it does not."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.gate import (
    LEAST_REPLAYED,
    ClassChange,
    Comparison,
    Decision,
    Evidence,
    Limits,
    Replayed,
    Rival,
    Unmeasured,
    decide_by,
)

LIMITS = Limits(source_share=0.5)


def compared(difference: float, low: float, high: float, rows: int = 500) -> Comparison:
    return Comparison(rows=rows, macro_f1=0.9 + difference, rival_macro_f1=0.9, low=low, high=high)


def rival(version: str, difference: float, low: float, high: float, *, known: float | None = None) -> Rival:
    """With ``known``, 100 rows that were there on which the difference is that, for certain, and 400 that are new."""
    if known is None:
        return Rival(version=version, comparison=compared(difference, low, high))
    return Rival(
        version=version,
        comparison=compared(difference, low, high),
        known=compared(known, known - 0.001, known + 0.001, rows=100),
        new=compared(0.05, 0.04, 0.06, rows=400),
    )


FIRST = Evidence(
    rows=500,
    classes=4,
    learnt=4,
    untested=(),
    macro_f1=0.9,
    interval=(0.87, 0.93),
    by_chance=0.0005,
    agreement=0.99,
    size=1_000_000,
    latency_us=10.0,
    sources={"labels": 250, "others": 250},
)
AGAINST = msgspec.structs.replace(
    FIRST,
    champion=Rival(
        version="v1", comparison=Comparison(rows=500, macro_f1=0.9, rival_macro_f1=0.89, low=-0.01, high=0.03)
    ),
    champion_latency_us=9.0,
    replay=Replayed(
        requests=1000,
        changed=100,
        unreadable=3,
        classes=(ClassChange("sport", 300, 80, "news"), ClassChange("news", 700, 20, "sport")),
    ),
)


def judged(evidence: Evidence = AGAINST, **changes: object) -> Decision:
    return decide_by(msgspec.structs.replace(evidence, **changes), LIMITS)


def failures(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_a_candidate_with_nothing_against_it_is_promoted_with_what_was_measured() -> None:
    decision = judged()
    assert decision.promoted
    assert "macro-F1 is +1.00 points from v1 (95 % interval -1.00 to +3.00, 500 test rows)" in decision.reason
    assert "100 of the last 1000 requests change their answer (10.0%" in decision.reason


def test_the_first_version_has_to_beat_what_ignores_the_text() -> None:
    assert judged(FIRST).promoted
    assert judged(FIRST).reason.startswith("the first version: macro-F1 is 0.9000")
    refused = judged(FIRST, macro_f1=0.29)
    assert failures(refused) == ["chance"]
    assert not refused.promoted
    assert judged(FIRST, macro_f1=0.31).promoted


def test_a_version_without_a_test_row_is_not_promoted() -> None:
    nothing = judged(FIRST, rows=0, classes=0, macro_f1=None, by_chance=None, agreement=None, untested=tuple("abcd"))
    assert failures(nothing) == ["chance", "untested-classes", "agreement"]
    assert all("can't tell" in check.detail for check in nothing.checks if not check.passed)


@pytest.mark.parametrize("limit", [0.0, 0.9])
def test_an_agreement_of_no_rows_fails_whatever_the_limit(limit: float) -> None:
    decision = decide_by(msgspec.structs.replace(FIRST, agreement=None), Limits(agreement=limit))
    assert failures(decision) == ["agreement"]
    assert "can't tell" in decision.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rows": 9}, "9 test rows, and gate.least_rows is 10"),
        ({"rows": 1, "classes": 1, "macro_f1": 1.0}, "1 test rows, and gate.least_rows is 10"),
        ({"classes": 1, "macro_f1": 1.0}, "500 test rows, all of one class"),
        ({"by_chance": 0.026}, "answers that ignore the text do as well on 2.6% of such"),
        ({"by_chance": 1.0}, "do as well on 100.0% of such, at most 2.5% may be"),
        ({"by_chance": math.nan}, "answers that ignore the text do as well on nan% of such"),
        ({"by_chance": None}, "nobody measured"),
    ],
)
def test_rows_that_can_not_tell_promote_nothing_and_the_reason_says_what_to_do(
    changes: dict[str, object], why: str
) -> None:
    for evidence in (FIRST, AGAINST):
        decision = judged(evidence, **changes)
        assert failures(decision) == ["chance"]
        assert decision.reason.startswith("can't tell: ")
        assert why in decision.reason
        assert "label more texts (about a tenth of them test), or look at it and promote it by hand" in decision.reason


def test_who_judges_by_rows_of_a_holdout_is_told_to_add_some() -> None:
    decision = judged(FIRST, rows=3, decided_on="rows of gate.holdout", sources={})
    assert "can't tell: 3 rows of gate.holdout" in decision.reason
    assert "add rows of gate.holdout" in decision.reason


def test_how_few_rows_are_enough_is_a_setting() -> None:
    nine = msgspec.structs.replace(FIRST, rows=9)
    assert decide_by(nine, Limits(least_rows=9)).promoted
    assert failures(decide_by(nine, Limits(least_rows=10))) == ["chance"]


@pytest.mark.parametrize(
    ("learnt", "untested", "passed"), [(2, 1, False), (3, 1, False), (4, 1, False), (5, 1, True), (77, 15, True)]
)
def test_learnt_classes_without_test_rows_refuse_unless_they_are_few_among_many(
    learnt: int, untested: int, passed: bool
) -> None:
    names = tuple(f"class {number}" for number in range(untested))
    decision = judged(FIRST, learnt=learnt, untested=names)
    assert failures(decision) == ([] if passed else ["untested-classes"])
    (check,) = [check for check in decision.checks if check.name == "untested-classes"]
    assert f"{untested} of the {learnt} classes that it learnt" in check.detail
    assert "class 0" in check.detail
    assert passed or "can't tell" in decision.reason
    allowed = decide_by(msgspec.structs.replace(FIRST, learnt=learnt, untested=names), Limits(untested_classes=1.0))
    assert allowed.promoted
    assert "untested-classes" not in {check.name for check in allowed.checks}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["macro_f1", "agreement", "latency_us", "champion_latency_us"])
def test_what_is_no_number_fails_its_check_and_the_verdict_can_be_read(field: str, value: float) -> None:
    decision = judged(AGAINST, **{field: value})
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision
    assert not decision.promoted
    assert "can't tell" in decision.reason


@pytest.mark.parametrize("field", ["macro_f1", "rival_macro_f1", "low", "high"])
def test_a_comparison_of_what_is_no_number_promotes_nothing(field: str) -> None:
    comparison = msgspec.structs.replace(compared(0.0, -0.01, 0.01), **{field: math.nan})
    for side in ("champion", "baseline"):
        decision = judged(**{side: Rival(version="v1", comparison=comparison)})
        assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision
        assert not decision.promoted


@pytest.mark.parametrize(
    ("changes", "failed", "said"),
    [
        ({"macro_f1": 0.1}, "chance", "without reading the text"),
        ({"agreement": 0.89}, "agreement", "89.00% of the 500 test rows"),
        ({"size": 65 << 20}, "size", "68.16 MB"),
        ({"latency_us": 1001.0, "champion_latency_us": 1000.0}, "latency", "1001.0 us"),
        ({"latency_us": 19.1}, "latency-against-champion", "the champion 9.0 us"),
        ({"latency_us": 90.1, "champion_latency_us": 45.0}, "latency-against-champion", "2 times as long"),
        (
            {"champion": Rival(version="v1", comparison=Unmeasured("it has no artifact"))},
            "macro-f1",
            "could not be compared with v1",
        ),
        (
            {"baseline": Rival(version="v0", comparison=Unmeasured("its split is not known here"))},
            "macro-f1-baseline",
            "could not be compared with the baseline v0 on the test rows: its split is not known here",
        ),
        ({"baseline": rival("v0", -0.021, -0.03, -0.001)}, "macro-f1-baseline", "-2.10 points from the baseline v0"),
        (
            {"champion": rival("v1", 0.03, 0.02, 0.04, known=-0.011)},
            "macro-f1-known",
            "-1.10 points from v1 on the 100 test rows that its snapshot held already",
        ),
        (
            {"baseline": rival("v0", 0.03, 0.02, 0.04, known=-0.021)},
            "macro-f1-baseline-known",
            "-2.10 points from the baseline v0 on the 100 test rows that its snapshot held already",
        ),
        (
            {"sources": {"theirs": 301, "ours": 299}},
            "source-share",
            "301 of the test rows (50.2%) come from the topic theirs",
        ),
        ({"replay": Unmeasured("the store is away")}, "replay", "could not be replayed: the store is away"),
    ],
)
def test_each_check_can_refuse_alone_and_says_why(changes: dict[str, object], failed: str, said: str) -> None:
    decision = judged(**changes)
    assert failures(decision) == [failed]
    assert not decision.promoted
    assert said in decision.reason


@pytest.mark.parametrize(
    ("difference", "low", "high", "failed"),
    [
        (-0.009, -0.03, -0.001, []),
        (-0.011, -0.03, -0.001, ["macro-f1"]),
        (-0.011, -0.03, 0.001, []),
        (0.0, -0.049, 0.049, []),
        (0.0, -0.051, 0.051, ["macro-f1-interval"]),
        (-0.02, -0.06, -0.001, ["macro-f1", "macro-f1-interval"]),
    ],
)
def test_a_loss_that_was_seen_and_one_that_cannot_be_excluded_are_limited_apart(
    difference: float, low: float, high: float, failed: list[str]
) -> None:
    assert failures(judged(champion=rival("v1", difference, low, high))) == failed


def test_rows_that_came_since_the_champions_snapshot_are_told_apart() -> None:
    decision = judged(champion=rival("v1", 0.03, 0.02, 0.04, known=-0.005))
    assert decision.promoted
    assert "500 test rows; +5.00 on 400 that came since its snapshot, -0.50 on the others)" in decision.reason
    only_new = Rival(version="v1", comparison=compared(0.0, -0.01, 0.01), new=compared(0.0, -0.01, 0.01))
    assert "+0.00 on 500 that came since its snapshot, there are no others)" in judged(champion=only_new).reason


def test_a_point_can_not_be_spent_again_at_each_training() -> None:
    spent = 0.0
    for training in range(5):
        spent -= 0.009
        decision = judged(
            champion=rival("last", -0.009, -0.02, -0.001), baseline=rival("best", spent, spent - 0.01, spent + 0.001)
        )
        assert decision.promoted is (training < 2), decision.reason
        assert not decision.raises_baseline


@pytest.mark.parametrize(
    ("evidence", "raised"),
    [
        (FIRST, True),
        (msgspec.structs.replace(FIRST, macro_f1=0.1), False),
        (msgspec.structs.replace(AGAINST, champion=rival("v1", 0.02, 0.01, 0.03)), True),
        (msgspec.structs.replace(AGAINST, champion=rival("v1", 0.02, -0.01, 0.05)), False),
        (msgspec.structs.replace(AGAINST, baseline=rival("v0", 0.02, 0.01, 0.03)), True),
        (msgspec.structs.replace(AGAINST, baseline=rival("v0", 0.02, -0.01, 0.05)), False),
        (msgspec.structs.replace(AGAINST, baseline=rival("v0", 0.02, 0.01, 0.03, known=-0.001)), False),
        (msgspec.structs.replace(AGAINST, baseline=rival("v0", 0.02, 0.01, 0.03, known=0.001)), True),
    ],
)
def test_the_baseline_is_raised_by_who_is_better_for_certain_and_not_by_new_rows_alone(
    evidence: Evidence, raised: bool
) -> None:
    assert decide_by(evidence, LIMITS).raises_baseline is raised


def test_a_single_topic_of_labels_is_all_of_the_test_rows_unless_a_share_forbids_it() -> None:
    one = msgspec.structs.replace(FIRST, sources={"labels": 500})
    assert decide_by(one, Limits()).promoted
    assert "source-share" not in {check.name for check in decide_by(one, Limits()).checks}
    refused = decide_by(one, Limits(source_share=0.9))
    assert failures(refused) == ["source-share"]
    assert "there is no other topic of labels, so below 100% only rows of gate.holdout can decide" in refused.reason
    two = msgspec.structs.replace(FIRST, sources={"labels": 450, "others": 50})
    assert decide_by(two, Limits(source_share=0.9)).promoted


def test_a_rival_that_may_know_rows_of_the_holdout_is_said_to() -> None:
    champion = msgspec.structs.replace(rival("v1", 0.0, -0.01, 0.01), spared=False)
    decision = judged(champion=champion, decided_on="rows of gate.holdout")
    assert "500 rows of gate.holdout; v1 may have been trained on some of them)" in decision.reason


def test_a_split_without_a_key_is_said_in_every_verdict() -> None:
    assert "trainer.split_key is not set" in judged(FIRST, keyed=False).checks[0].detail
    assert "split_key" not in judged(FIRST).checks[0].detail


def test_too_many_changed_answers_refuse_and_name_the_classes_that_change_most() -> None:
    replay = msgspec.structs.replace(AGAINST.replay, changed=300)
    decision = judged(replay=replay)
    assert failures(decision) == ["replay"]
    assert "sport 80 of 300, mostly to news; news 20 of 700, mostly to sport" in decision.reason


def test_a_candidate_that_abstains_from_too_much_is_refused_where_coverage_is_asked_for() -> None:
    replay = msgspec.structs.replace(AGAINST.replay, labelled=700)
    evidence = msgspec.structs.replace(AGAINST, replay=replay)
    assert "coverage" not in [check.name for check in judged(evidence).checks]
    asked = msgspec.structs.replace(LIMITS, coverage=0.7)
    assert decide_by(evidence, asked).promoted
    more = decide_by(evidence, msgspec.structs.replace(LIMITS, coverage=0.71))
    assert failures(more) == ["coverage"]
    assert "700 of the last 1000 requests get a label (70.0%)" in more.reason
    few = msgspec.structs.replace(
        evidence, replay=Replayed(requests=3, changed=0, unreadable=0, classes=(), labelled=3)
    )
    assert "coverage" in failures(decide_by(few, asked))
    unmeasured = msgspec.structs.replace(evidence, replay=Unmeasured("Kafka is away"))
    assert "coverage" in failures(decide_by(unmeasured, asked))


def test_few_requests_prove_nothing() -> None:
    few = Replayed(requests=LEAST_REPLAYED - 1, changed=LEAST_REPLAYED - 1, unreadable=0, classes=())
    assert judged(replay=few).promoted
    assert "too few were compared to tell: 29 requests" in judged(replay=few).reason
    enough = msgspec.structs.replace(few, requests=LEAST_REPLAYED, changed=LEAST_REPLAYED)
    assert failures(judged(replay=enough)) == ["replay"]
    none = judged(replay=Replayed(requests=0, changed=0, unreadable=0, classes=()))
    assert none.promoted
    assert "can't tell, nothing was compared: 0 requests could be replayed" in none.reason


@pytest.mark.parametrize("readable", [0, 1, LEAST_REPLAYED - 1])
def test_requests_that_nobody_can_read_are_no_reason_to_promote(readable: int) -> None:
    decision = judged(replay=Replayed(requests=readable, changed=0, unreadable=LEAST_REPLAYED - readable, classes=()))
    assert failures(decision) == ["replay"]
    assert f"can't tell: {LEAST_REPLAYED - readable} of the last {LEAST_REPLAYED} requests hold no text" in (
        decision.reason
    )
    few = judged(replay=Replayed(requests=0, changed=0, unreadable=LEAST_REPLAYED - 1, classes=()))
    assert few.promoted


def test_few_rows_can_not_tell_a_candidate_from_a_worse_one() -> None:
    decision = judged(champion=rival("v1", 0.0, -0.36, 0.37))
    assert failures(decision) == ["macro-f1-interval"]
    assert decision.reason.startswith("can't tell whether it is worse, label more texts")


@pytest.mark.parametrize(
    ("rows", "differ", "limit", "passed"),
    [
        (50, 1, 0.99, True),  # of 50 rows one is more than a hundredth
        (50, 2, 0.99, False),
        (100, 1, 0.99, True),
        (200, 3, 0.99, False),
        (5, 1, 0.9, True),
        (5, 2, 0.9, False),
        (50, 1, 1.0, False),
    ],
)
def test_one_row_of_few_that_differs_from_the_original_tells_nothing(rows, differ, limit, passed) -> None:
    evidence = msgspec.structs.replace(FIRST, rows=rows, agreement=1 - differ / rows)
    (one,) = [check for check in decide_by(evidence, Limits(agreement=limit)).checks if check.name == "agreement"]
    assert one.passed is passed
    assert ("too few to tell, one row differs" in one.detail) is (passed and 1 - differ / rows < limit)
    assert f"of the {rows} test rows" in one.detail


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 1 << 30),
    st.floats(0.1, 5000),
    st.integers(0, 2000),
)
def test_it_is_promoted_exactly_when_every_check_passed(
    macro_f1: float, agreement: float, champion: float, size: int, latency: float, changed: int
) -> None:
    decision = judged(
        macro_f1=macro_f1,
        agreement=agreement,
        size=size,
        latency_us=latency,
        champion=rival("v1", macro_f1 - champion, macro_f1 - champion - 0.02, 0.1, known=champion - macro_f1),
        replay=Replayed(requests=2000, changed=changed, unreadable=0, classes=()),
    )
    assert decision.promoted is all(check.passed for check in decision.checks)
    assert all(check.detail in decision.reason for check in decision.checks if not check.passed)
    assert len({check.name for check in decision.checks}) == len(decision.checks) == 11


def test_an_unproven_version_is_never_promoted_and_that_is_the_first_reason():
    judgement = judged(FIRST, unproven=True)
    assert not judgement.promoted
    assert judgement.checks[0].name == "proven"
    assert judgement.reason.startswith("no person labelled any of its rows")
    assert "headrace models promote VERSION" in judgement.reason
