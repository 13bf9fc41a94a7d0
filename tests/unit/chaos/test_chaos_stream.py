"""What the readers of a chaos run accepted, when one had to be followed by another."""

from __future__ import annotations

import numpy as np

from headrace_load.measure.audit import ANSWERED
from load.chaos.world import continued


def rows(*places):
    accepted = np.zeros(len(places), ANSWERED)
    for row, (partition, offset) in zip(accepted, places, strict=True):
        row["partition"], row["offset"] = partition, offset
    return accepted


def test_a_reader_that_begins_again_adds_what_those_before_it_had_not_accepted():
    together = continued([rows((0, 0), (0, 1), (1, 5)), rows((0, 0), (0, 1), (0, 2), (1, 5), (2, 0)), rows((0, 3))])
    places = together[["partition", "offset"]].tolist()
    assert places == [(0, 0), (0, 1), (1, 5), (0, 2), (2, 0), (0, 3)]


def test_what_one_reader_accepted_twice_stays_twice():
    assert len(continued([rows((0, 0)), rows((0, 0), (0, 1), (0, 1))])) == 3
