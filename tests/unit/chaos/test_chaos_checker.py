"""The checker of the chaos runs, shown histories that keep the promise and histories that break it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.answer_log import PartitionReader
from headrace_load.measure.audit import ANSWERED, SENT
from load.chaos.checker import LOGGED, LOST, REQUEST, History, check, together

SECOND_US = 1_000_000


def crc(partition: int, offset: int) -> int:
    return partition * 1000 + offset + 7


def history(answers, *, requests=6, partitions=1, said=(), acked=None, deleted=(), began_us=0, seen=None) -> History:
    """A history of ``requests`` a partition, one a second, and of what the results logs hold.

    An answer is (partition, offset, after), or with more: its CRC-32, when it was appended, its digest. ``seen`` is
    which positions the reader accepted; by default what the client's reader does accept of these logs.
    """
    sent = np.zeros(requests * partitions, SENT)
    log_of_requests = []
    for number in range(requests * partitions):
        partition, offset = number % partitions, number // partitions
        acknowledged = acked is None or (partition, offset) in acked
        row = sent[number]
        row["partition"], row["offset"] = partition, offset if acknowledged else -1
        row["crc"], row["acked_us"] = crc(partition, offset), 1 if acknowledged else -1
        row["good"] = True
        if (partition, offset) not in deleted:
            log_of_requests.append((partition, offset, crc(partition, offset), offset * SECOND_US))
    rows = []
    for position, (partition, offset, after, *more) in enumerate(answers):
        which, appended_us, digest = (*more, *(crc(partition, offset), offset * SECOND_US, offset)[len(more) :])
        rows.append((partition, position, offset, after, which, 0, digest, appended_us))
    log = np.array(rows, LOGGED)
    return History(
        sent=sent,
        requests=np.array(log_of_requests, REQUEST),
        log=log,
        seen=accepted(log) if seen is None else accepted(log, seen),
        said=np.array(list(said), LOST),
        began_us=began_us,
    )


def accepted(log, positions=None):
    """What a reader accepts that uses the helper, or the rows of ``positions`` whatever it would do."""
    readers: dict[int, PartitionReader] = {}
    rows = []
    for row in log if positions is None else log[list(positions)]:
        reading = readers.setdefault(int(row["partition"]), PartitionReader(-1)).read(
            int(row["offset"]), int(row["after"])
        )
        if reading.accepted or positions is not None:
            hole = reading.accepted and reading.hole is not None
            rows.append((-1, row["partition"], row["offset"], row["position"], row["crc"], 0, hole, 0, 0))
    return np.array(rows, ANSWERED)


def straight(count=6, partition=0):
    return [(partition, offset, offset - 1) for offset in range(count)]


def test_a_history_in_which_each_request_has_its_answer_keeps_the_promise():
    found = check(history([*straight(), *straight(partition=1)], partitions=2))
    assert found.kept
    assert (found.acknowledged, found.answered, found.lost, found.raw.equal) == (12, 12, 0, 0)


def test_an_acknowledged_request_without_an_answer_is_lost():
    found = check(history(straight(5)))
    assert (found.lost, found.kept) == (1, False)


def test_a_request_that_nobody_acknowledged_need_not_be_answered_but_may_be():
    acked = {(0, offset) for offset in range(5)}
    assert check(history(straight(5), acked=acked)).kept
    assert check(history(straight(6), acked=acked)).kept


def test_a_batch_that_is_left_out_is_a_loss_and_a_hole_that_the_reader_was_told():
    found = check(history([(0, 0, -1), (0, 3, 2), (0, 4, 3), (0, 5, 4)]))
    assert (found.lost, found.holes, found.kept) == (2, 1, False)


def test_a_loss_hidden_from_the_reader_by_a_false_after_is_still_found():
    found = check(history([(0, 0, -1), (0, 3, 0), (0, 4, 3), (0, 5, 4)]))
    assert (found.lost, found.holes) == (2, 0)


def test_repeats_that_the_reader_drops_break_nothing_and_are_counted_by_their_kind():
    logged = [*straight(3), (0, 1, 0), (0, 2, 1, crc(0, 2), 0, 99), *straight()[3:]]
    found = check(history(logged))
    assert found.kept
    assert (found.raw.equal, found.raw.other) == (1, 1)


def test_an_answer_that_a_reader_sees_twice_breaks_the_promise():
    found = check(history([*straight(), (0, 5, 4)], seen=range(7)))
    assert (found.seen_twice, found.kept) == (1, False)


def test_answers_in_another_order_break_the_promise():
    logged = [(0, 0, -1), (0, 2, 1), (0, 1, 0), *straight()[3:]]
    assert not check(history(logged)).kept
    assert check(history(logged, seen=range(6))).out_of_order == 1


def test_an_answer_to_a_request_that_is_not_there_is_invented():
    found = check(history([*straight(), (0, 6, 5)]))
    assert (found.invented, found.kept) == (1, False)


def test_an_answer_to_another_text_is_wrong():
    found = check(history([*straight(5), (0, 5, 4, 1)]))
    assert (found.wrong, found.lost, found.kept) == (1, 0, False)


def test_what_an_answer_says_is_lost_is_no_silent_loss_but_breaks_the_promise_of_an_answer():
    found = check(history([(0, 0, -1), (0, 3, 2), *straight()[4:]], said=[(0, 1, 2)], deleted={(0, 1), (0, 2)}))
    assert (found.lost, found.said, found.told, found.kept) == (0, 2, True, False)


def test_what_was_accepted_and_is_no_longer_in_the_log_is_told():
    whole = history(straight())
    cut = History(**{name: getattr(whole, name) for name in whole.__struct_fields__} | {"log": whole.log[:4]})
    assert (check(cut).unlogged, check(cut).kept) == (2, False)


def test_the_longest_stall_is_the_longest_time_in_which_something_waited_and_nothing_was_answered():
    late = {2: 7, 3: 7, 4: 8, 5: 8}
    logged = [(0, o, o - 1, crc(0, o), late.get(o, o) * SECOND_US) for o in range(6)]
    found = check(history(logged, began_us=1 * SECOND_US))
    assert found.stall_s == pytest.approx(5.0)
    assert found.recovery_s == pytest.approx(7.0)


def test_an_idle_partition_does_not_stand_still():
    logged = [(0, o, o - 1, crc(0, o), o * SECOND_US + 1000) for o in range(6)]
    found = check(history(logged, began_us=1))
    assert found.stall_s == pytest.approx(0.001)
    assert found.recovery_s == 0


@given(repeats=st.lists(st.integers(0, 9), max_size=8), data=st.data())
def test_a_log_with_any_repeats_keeps_the_promise_until_one_answer_is_taken_out(repeats, data):
    logged = straight(10)
    for offset in sorted(repeats, reverse=True):
        logged.insert(data.draw(st.integers(offset + 1, len(logged))), (0, offset, offset - 1))
    assert check(history(logged, requests=10)).kept
    gone = data.draw(st.integers(0, 9))
    without = [answer for answer in logged if answer[1] != gone]
    assert not check(history(without, requests=10)).kept


@pytest.mark.parametrize(("said", "unlogged", "told"), [((), 2, False), ([(0, 3, 4)], 0, True)])
def test_an_accepted_answer_that_is_not_in_the_log_any_more_breaks_it_unless_somebody_said_so(said, unlogged, told):
    found = history(straight(), said=said)
    found = msgspec.structs.replace(found, log=found.log[[0, 1, 2, 5]])
    assert (check(found).unlogged, check(found).told) == (unlogged, told)


def test_a_log_that_was_read_before_a_part_was_deleted_is_whole_again_and_holds_nothing_twice():
    log = history([*straight(), *straight(partition=1)], partitions=2).log
    again = together("position", [log[:8], log[5:]])
    assert again.tolist() == log.tolist()


def test_where_something_else_stands_now_what_was_read_first_counts():
    log = history(straight()).log
    other = log.copy()
    other["crc"] = 0
    assert together("position", [log[:4], other])["crc"].tolist() == [*log["crc"][:4], 0, 0]
