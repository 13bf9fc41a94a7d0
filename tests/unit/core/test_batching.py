from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from headrace.core import batching
from headrace.core.batching import SHARERS, Closed, Cut, next_first

cut = partial(batching.cut, ready_ms=0.0)


class Sizes(list):
    def fitting(self, first, most, most_bytes, _ready_ms):
        count = size = 0
        while count < most and size + self[first + count] <= most_bytes:
            size += self[first + count]
            count += 1
        return count, size


queues = st.lists(st.lists(st.integers(0, 50), max_size=20).map(Sizes), max_size=6)


def test_takes_what_waits_without_waiting_for_more():
    assert cut([Sizes([1, 1]), Sizes([]), Sizes([1])], max_records=8, max_bytes=100) == Cut((2, 0, 1), Closed.DRAINED)


def test_shares_a_full_batch_evenly_and_gives_the_rest_to_those_with_more():
    assert cut([Sizes([1] * 50), Sizes([1] * 2), Sizes([1] * 50)], max_records=10, max_bytes=100) == Cut(
        (4, 2, 4), Closed.FULL
    )


def test_a_single_partition_may_fill_the_batch():
    assert cut([Sizes([1] * 50)], max_records=10, max_bytes=100) == Cut((10,), Closed.FULL)


def test_the_byte_budget_closes_a_batch():
    assert cut([Sizes([40, 40, 40])], max_records=10, max_bytes=100) == Cut((2,), Closed.BYTES)


def test_a_request_over_the_budget_goes_alone():
    assert cut([Sizes([400, 1])], max_records=10, max_bytes=100) == Cut((1,), Closed.BYTES)


def test_the_turn_decides_who_is_served_when_there_is_room_for_one():
    waiting = [Sizes([1]), Sizes([1]), Sizes([1])]
    assert [cut(waiting, max_records=1, max_bytes=9, first=turn).taken for turn in range(3)] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]


@given(queues, st.integers(1, 40), st.integers(1, 200), st.integers(0, 5))
def test_a_cut_keeps_its_bounds_and_never_starves_a_non_empty_worker(waiting, max_records, max_bytes, first):
    plan = cut(waiting, max_records=max_records, max_bytes=max_bytes, first=first)
    assert all(0 <= taken <= len(queue) for taken, queue in zip(plan.taken, waiting, strict=True))
    assert sum(plan.taken) <= max_records
    size = sum(sum(queue[:taken]) for taken, queue in zip(plan.taken, waiting, strict=True))
    assert size <= max_bytes or sum(plan.taken) == 1
    if any(waiting):
        assert sum(plan.taken) >= 1
    if plan.closed is Closed.DRAINED:
        assert list(plan.taken) == [len(queue) for queue in waiting]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=SHARERS), st.integers(SHARERS, 40))
def test_no_partition_gets_more_than_one_above_another_that_still_waits(lengths, max_records):
    plan = cut([Sizes([1] * length) for length in lengths], max_records=max_records, max_bytes=10_000)
    short = [taken for taken, length in zip(plan.taken, lengths, strict=True) if taken < length]
    if short:
        assert max(plan.taken) - min(short) <= max(1, max_records // len(lengths))


@given(st.integers(1, 60), st.integers(1, 64), st.integers(0, 100))
def test_deep_queues_take_turns_and_none_waits_longer_than_one_round(count, max_records, first):
    deep = [Sizes([1] * 100) for _ in range(count)]
    served: list[int] = []
    for _ in range(count):
        plan = cut(deep, max_records=max_records, max_bytes=10_000, first=first % count)
        taking = [place for place, taken in enumerate(plan.taken) if taken]
        assert len(taking) <= SHARERS
        assert sum(plan.taken) == max_records
        served += taking
        if len(set(served)) == count:
            break
        first = next_first(plan.taken, first % count)
    assert set(served) == set(range(count))
    # Nobody was served a third time before everybody was served once.
    assert max(served.count(place) for place in range(count)) <= 2
