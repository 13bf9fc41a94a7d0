import msgspec

from headrace.core.poison_pills import DEATHS_ALLOWED, credible, telling, trial
from headrace_schemas.records import Attempt


def fresh(offset, process):
    return Attempt(results="results", partition=0, offset=offset, through=offset + 9, process=process)


def lives(killer, start=0, end=40):
    """Play workers that die over request ``killer``; return how many died and what was condemned."""
    found, position, deaths = None, start, 0
    while position < end and deaths < 20:
        now = trial(found, fresh(position, f"p{deaths}"))
        found = now.attempt
        if now.condemned:
            return deaths, position
        if now.alone_through < 0:
            # Batches of ten; a batch with the killer in it takes the process and answers nothing of it.
            while position < end and not position <= killer < position + 10:
                position += 10
        else:
            position = min(killer, now.alone_through + 1)
        if position > killer:
            return deaths, None
        deaths += 1
    return deaths, None


def test_a_first_start_suspects_nothing():
    now = trial(None, fresh(5, "a"))
    assert (now.alone_through, now.condemned, now.attempt) == (-1, False, fresh(5, "a"))


def test_a_record_that_kills_the_process_is_tried_alone_and_then_condemned():
    assert lives(killer=0) == (3, 0)


def test_a_killer_in_the_middle_of_a_batch_is_found_among_its_neighbours():
    deaths, condemned = lives(killer=7)
    assert condemned == 7
    assert deaths <= 5


def test_ones_own_attempt_is_no_death():
    assert trial(fresh(5, "a"), fresh(5, "a")).alone_through == -1


def test_progress_past_the_attempt_clears_it():
    assert trial(fresh(5, "a"), fresh(15, "b")).alone_through == -1


def test_an_attempt_that_was_made_anew_further_back_says_nothing():
    assert trial(fresh(5, "a"), fresh(4, "b")).alone_through == -1


def test_of_several_attempts_the_one_that_accuses_most_counts():
    here, before = alone(5, deaths=1), alone(2, deaths=2)
    assert telling([before, here, fresh(5, "x")], 5) == here
    assert telling([before], 5) == before
    assert telling([fresh(6, "x"), fresh(50, "y")], 5) is None


def test_what_a_trial_writes_is_always_credible():
    found, deaths = fresh(5, "p0"), 0
    for number in range(1, 8):
        now = trial(found, fresh(5 + number // 6, f"p{number}"))
        assert credible(now.attempt, max_batch=10)
        found, deaths = now.attempt, max(deaths, now.attempt.deaths)
    assert deaths == DEATHS_ALLOWED + 1
    assert not credible(fresh(5, "x"), max_batch=9)


def alone(offset, deaths):
    return msgspec.structs.replace(fresh(offset, "dead"), alone=True, deaths=deaths)
