import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.answer_log import (
    Hole,
    PartitionReader,
    Place,
    Reading,
    committed_place,
    decode_positions,
    encode_metadata,
    encode_positions,
)


def test_a_new_answer_is_accepted():
    assert PartitionReader(4).read(5, 4) == Reading(accepted=True)


def test_a_repeat_is_dropped_also_behind_newer_answers():
    reader = PartitionReader(9)
    assert not reader.read(9, 8).accepted
    assert not reader.read(3, 2).accepted
    assert reader.read(10, 9) == Reading(accepted=True)


def test_a_hole_is_reported_and_reading_goes_on():
    reader = PartitionReader(4)
    assert reader.read(8, 7) == Reading(accepted=True, hole=Hole(5, 7))
    assert reader.read(9, 8) == Reading(accepted=True)


def test_a_gap_of_the_requests_log_is_no_hole():
    assert PartitionReader(4).read(8, 4) == Reading(accepted=True)


def test_a_reader_that_knows_nothing_begins_anywhere():
    assert PartitionReader().read(500, 499) == Reading(accepted=True)


def test_places_are_kept_as_json_and_as_metadata_of_a_commit():
    places = {0: Place(12, 9), 11: Place(0), 3: Place(2**62, 2**62 + 1)}
    assert json.loads(encode_positions({7: Place(12, 9)})) == {"7": {"position": 12, "highest": 9}}
    assert decode_positions(encode_positions(places)) == places
    assert decode_positions(encode_positions(places).decode()) == places
    assert [committed_place(place.position, encode_metadata(place)) for place in places.values()] == [*places.values()]


def test_positions_alone_are_places_whose_highest_is_not_known():
    assert decode_positions('{"0": 12, "1": {"position": 3}}') == {0: Place(12), 1: Place(3)}


def test_a_place_of_a_later_version_with_more_in_it_is_read():
    assert committed_place(12, '{"position":12,"highest":9,"more":"x"}') == Place(12, 9)


@pytest.mark.parametrize("metadata", ["", "9", "null", "[]", "{", '{"position":11,"highest":9}', '{"highest":"9"}'])
def test_metadata_that_is_none_of_ours_or_of_another_position_tells_no_highest(metadata):
    assert committed_place(12, metadata) == Place(12)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=20))
def test_whatever_is_repeated_each_request_is_accepted_once_and_in_order(runs):
    log: list[int] = []
    count = 0
    for back, answered in runs:
        # A worker resumes at or before the end of what is answered and goes on from there.
        begin = max(0, count - back)
        log += range(begin, begin + answered)
        count = max(count, begin + answered)
    reader = PartitionReader(-1)
    readings = [(offset, reader.read(offset, offset - 1)) for offset in log]
    assert [offset for offset, reading in readings if reading.accepted] == list(range(count))
    assert all(reading.hole is None for _, reading in readings)


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(0, 50))
def test_a_restart_anywhere_repeats_and_skips_nothing(log, cut):
    whole, before = PartitionReader(-1), PartitionReader(-1)
    cut = min(cut, len(log))
    first = [offset for offset in log[:cut] if before.read(offset, -1).accepted]
    restarted = PartitionReader(before.highest)
    second = [offset for offset in log[cut:] if restarted.read(offset, -1).accepted]
    assert first + second == [offset for offset in log if whole.read(offset, -1).accepted]
