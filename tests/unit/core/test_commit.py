"""What is committed: all of an answered log, and never a request that has no answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.resume import last_of, settled, text_of, to_commit


@given(
    st.lists(st.booleans(), max_size=30),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=30),
    st.booleans(),
)
def test_no_request_without_an_answer_is_committed_and_in_the_end_the_whole_log_is(log, steps, written):
    """``log`` says which offsets hold a request. In each step some are fetched and some are answered, in order."""
    answered = expected = fetched = place = 0
    last, reached = -1, 0

    def step(fetches: int, answers: int, *, gap: bool) -> None:
        nonlocal answered, expected, fetched, place, last, reached
        fetched = min(len(log), fetched + fetches)
        expected = max([offset + 1 for offset in range(fetched) if log[offset]], default=0)
        waiting = [offset for offset in range(answered, fetched) if log[offset]]
        for offset in waiting[:answers]:
            last, answered = offset, offset + 1
        place = max(place, settled(answered=answered, expected=expected, fetched=fetched, gap=gap))
        commit = to_commit(answered=answered, settled=place, written=written or last >= 0)
        first = next((offset for offset in range(len(log)) if log[offset] and offset >= answered), len(log))
        assert answered <= commit <= first
        assert commit >= reached
        assert last_of(commit, text_of(commit, last)) == last
        reached = commit

    for fetches, answers, gap in steps:
        step(fetches, answers, gap=gap)
    step(len(log), len(log), gap=False)
    assert reached == (len(log) if written or any(log) else 0)


def test_a_log_that_was_never_answered_is_committed_as_far_as_it_was_answered():
    """Resuming takes a commit above the start beside an empty results log for a topic that was made anew."""
    assert to_commit(answered=5, settled=9, written=False) == 5


def test_somebody_elses_text_beside_a_commit_says_nothing():
    for text in ("", "x", "after=", "after=-2", "after=9 ", "by hand", "after=99"):
        assert last_of(10, text) == 9
    assert last_of(10, "after=-1") == -1
