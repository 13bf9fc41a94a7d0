import pytest

from headrace.core.resume import Answered, Facts, Refusal, Resume, decide, last_answered
from headrace_schemas.records import Loss


def facts(**changed):
    known = {
        "tail": (),
        "results_end": 0,
        "requests_start": 0,
        "requests_end": 100,
        "committed": None,
        "start": 0,
        "crc_at_last": None,
    }
    return Facts(**(known | changed))


TAIL = (Answered(40, 1), Answered(41, 2), Answered(38, 3))


@pytest.mark.parametrize(
    ("given", "decision"),
    [
        pytest.param(facts(start=7), Resume(7, 6), id="never answered: the group's start"),
        pytest.param(facts(tail=TAIL, results_end=9), Resume(42, 41), id="behind the highest answer, not the last"),
        pytest.param(facts(tail=TAIL, results_end=9, committed=90), Resume(42, 41), id="the commit does not count"),
        pytest.param(facts(tail=TAIL, results_end=9, crc_at_last=2), Resume(42, 41), id="the same request still"),
        pytest.param(
            facts(tail=TAIL, results_end=9, requests_start=50), Resume(50, 41, Loss(42, 49, "retention")), id="lost"
        ),
        pytest.param(facts(results_end=9, committed=30), Resume(30, 29), id="answers gone by retention: the commit"),
        pytest.param(facts(committed=7, start=7), Resume(7, 6), id="committed where it began, died before an answer"),
        pytest.param(facts(tail=(Answered(99, 1),), results_end=100), Resume(100, 99), id="all answered"),
    ],
)
def test_resumes_from_what_the_answer_log_says(given, decision):
    assert decide(given) == decision


@pytest.mark.parametrize(
    ("given", "word"),
    [
        pytest.param(facts(tail=TAIL, results_end=9, crc_at_last=5), "made anew", id="another request at that offset"),
        pytest.param(facts(tail=(Answered(100, 1),), results_end=101), "ends at 100", id="beyond the end"),
        pytest.param(facts(results_end=9), "no commit", id="answers gone and no commit"),
        pytest.param(facts(committed=30, start=7), "never written", id="commits without results"),
    ],
)
def test_stops_and_explains_where_going_on_would_lose_or_mix_answers(given, word):
    refusal = decide(given)
    assert isinstance(refusal, Refusal)
    assert word in refusal.reason


def test_the_highest_answer_counts_wherever_a_zombie_left_it():
    assert last_answered(TAIL) == Answered(41, 2)
    assert last_answered(()) is None
