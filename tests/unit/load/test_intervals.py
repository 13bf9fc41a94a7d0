import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headrace_load.result import FIGURES, alternating, difference, differences, turns
from tests.support.load_results import result_of

values = st.floats(0.01, 1e6)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=12)


@pytest.mark.filterwarnings("ignore:Precision loss occurred")
@given(pairs)
def test_the_interval_is_scipys_paired_one_over_logarithms(rounds):
    a, b = zip(*rounds, strict=True)
    found = difference("rate", a, b)
    by_scipy = stats.ttest_rel([math.log(one) for one in b], [math.log(one) for one in a])
    low, high = by_scipy.confidence_interval(0.95)
    if math.isnan(low):  # no two rounds differ: scipy has no interval, and ours is a point
        assert found.low == found.high == pytest.approx(found.ratio)
    else:
        assert math.log(found.low) == pytest.approx(low, abs=1e-6)
        assert math.log(found.high) == pytest.approx(high, abs=1e-6)
    assert found.rounds == len(rounds)


@given(pairs)
def test_turned_round_the_ratio_and_its_interval_are_inverse(rounds):
    a, b = zip(*rounds, strict=True)
    there, back = difference("rate", a, b), difference("rate", b, a)
    assert (there.ratio * back.ratio, there.low * back.high) == (pytest.approx(1), pytest.approx(1))
    assert there.low <= there.ratio * (1 + 1e-9)
    assert there.ratio <= there.high * (1 + 1e-9)


def test_by_hand():
    found = difference("rate", [1.0, 1.0], [math.e, math.e**3])
    # Logarithms 1 and 3: mean 2, standard error 1, and t(0.975) with one degree of freedom is 12.706.
    assert found.ratio == pytest.approx(math.e**2)
    assert math.log(found.high) == pytest.approx(14.706, abs=1e-3)


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([0.0, 1.0], [1.0, 1.0])])
def test_what_has_no_interval_is_refused(a, b):
    with pytest.raises(ValueError, match="rate: "):
        difference("rate", a, b)


def test_each_is_compared_with_the_first_in_every_figure_both_have():
    runs = {name: (result_of(rate=rate), result_of(rate=rate * 1.1, seed=2)) for name, rate in (("a", 1e3), ("b", 3e3))}
    runs["c"] = (msgspec.structs.replace(runs["b"][0], to_append=None), runs["b"][1])
    found = differences(runs)
    assert list(found) == ["b", "c"]
    assert [one.figure for one in found["b"]] == list(FIGURES)
    assert found["b"][0].ratio == pytest.approx(3)
    assert [one.figure for one in found["c"]] == ["rate", "cpu_s_per_100k", "rss_mb_most"]


def test_one_round_has_no_differences():
    assert differences({"a": (result_of(),), "b": (result_of(),)}) == {"b": ()}


@given(st.integers(1, 5), st.integers(1, 7))
def test_each_round_has_each_contender_once_and_all_begin_equally_often(contenders, rounds):
    names = [str(number) for number in range(contenders)]
    found = turns(names, rounds)
    for number in range(rounds + 1):
        assert sorted(name for when, name in found if when == number) == names
    begins = [found[number * contenders][1] for number in range(rounds + 1)]
    assert max(map(begins.count, names)) - min(map(begins.count, names)) <= 1


async def test_the_warm_up_is_run_and_left_out():
    ran = []

    async def one(number: int, name: str) -> str:
        ran.append((number, name))
        return f"{name}{number}"

    assert await alternating(["a", "b"], 2, one) == {"a": ("a1", "a2"), "b": ("b1", "b2")}
    assert ran == turns(["a", "b"], 2)
