"""What the gate lets through, and what it says when it does not."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.gate import (
    LEAST_REPLAYED,
    ClassChange,
    Comparison,
    Evidence,
    Judgement,
    Limits,
    Replayed,
    Unmeasured,
    judge,
)

LIMITS = Limits()
FIRST = Evidence(rows=500, classes=4, macro_f1=0.9, agreement=0.99, size=1_000_000, latency_us=10.0)
AGAINST = msgspec.structs.replace(
    FIRST,
    champion="v1",
    comparison=Comparison(macro_f1=0.9, champion_macro_f1=0.89, low=-0.01, high=0.03),
    champion_latency_us=9.0,
    replay=Replayed(
        requests=1000,
        changed=100,
        unreadable=3,
        classes=(ClassChange("sport", 300, 80, "news"), ClassChange("news", 700, 20, "sport")),
    ),
)


def judged(evidence: Evidence = AGAINST, **changes: object) -> Judgement:
    return judge(msgspec.structs.replace(evidence, **changes), LIMITS)


def failures(judgement: Judgement) -> list[str]:
    return [check.name for check in judgement.checks if not check.passed]


def test_a_candidate_with_nothing_against_it_is_promoted_with_what_was_measured() -> None:
    judgement = judged()
    assert judgement.promoted
    assert "macro-F1 is +1.00 points from v1 (95 % interval -1.00 to +3.00, 500 test rows)" in judgement.reason
    assert "100 of the last 1000 requests change their answer (10.0%" in judgement.reason


def test_the_first_version_has_to_beat_what_ignores_the_text() -> None:
    assert judged(FIRST).promoted
    assert judged(FIRST).reason.startswith("the first version: macro-F1 is 0.9000")
    refused = judged(FIRST, macro_f1=0.29)
    assert failures(refused) == ["chance"]
    assert not refused.promoted
    assert judged(FIRST, macro_f1=0.31).promoted


def test_a_version_without_a_test_row_is_not_promoted() -> None:
    assert failures(judged(FIRST, rows=0, classes=0, macro_f1=0.0)) == ["chance"]


@pytest.mark.parametrize(
    ("changes", "failed", "said"),
    [
        ({"macro_f1": 0.1}, "chance", "without reading the text"),
        ({"agreement": 0.89}, "agreement", "89.00% of the test rows"),
        ({"size": 65 << 20}, "size", "68.16 MB"),
        ({"latency_us": 1001.0, "champion_latency_us": 1000.0}, "latency", "1001.0 us"),
        ({"latency_us": 19.1}, "latency-against-champion", "the champion 9.0 us"),
        ({"latency_us": 90.1, "champion_latency_us": 45.0}, "latency-against-champion", "2 times as long"),
        ({"comparison": Unmeasured("it has no artifact")}, "macro-f1", "could not be compared with v1"),
        ({"comparison": None}, "macro-f1", "could not be compared with v1"),
        ({"replay": Unmeasured("the store is away")}, "replay", "could not be replayed: the store is away"),
    ],
)
def test_each_check_can_refuse_alone_and_says_why(changes: dict[str, object], failed: str, said: str) -> None:
    judgement = judged(**changes)
    assert failures(judgement) == [failed]
    assert not judgement.promoted
    assert said in judgement.reason


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
    comparison = Comparison(macro_f1=0.9 + difference, champion_macro_f1=0.9, low=low, high=high)
    assert failures(judged(comparison=comparison)) == failed


def test_too_many_changed_answers_refuse_and_name_the_classes_that_change_most() -> None:
    replay = msgspec.structs.replace(AGAINST.replay, changed=300)
    judgement = judged(replay=replay)
    assert failures(judgement) == ["replay"]
    assert "sport 80 of 300, mostly to news; news 20 of 700, mostly to sport" in judgement.reason


def test_few_requests_prove_nothing() -> None:
    few = Replayed(requests=LEAST_REPLAYED - 1, changed=LEAST_REPLAYED - 1, unreadable=0, classes=())
    assert judged(replay=few).promoted
    enough = msgspec.structs.replace(few, requests=LEAST_REPLAYED, changed=LEAST_REPLAYED)
    assert failures(judged(replay=enough)) == ["replay"]
    none = judged(replay=Replayed(requests=0, changed=0, unreadable=0, classes=()))
    assert none.promoted
    assert "0 requests could be replayed" in none.reason


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
    judgement = judged(
        macro_f1=macro_f1,
        agreement=agreement,
        size=size,
        latency_us=latency,
        comparison=Comparison(macro_f1=macro_f1, champion_macro_f1=champion, low=macro_f1 - champion - 0.02, high=0.1),
        replay=Replayed(requests=2000, changed=changed, unreadable=0, classes=()),
    )
    assert judgement.promoted is all(check.passed for check in judgement.checks)
    assert all(check.detail in judgement.reason for check in judgement.checks if not check.passed)
    assert len({check.name for check in judgement.checks}) == len(judgement.checks) == 8
