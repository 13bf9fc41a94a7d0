"""The search: a path that saves most for its cost, and the smallest network on it that the budget allows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.compress.curve import Budget, Plan, Point, Score, Tuning, artifact_bytes, float_bytes
from headrace.learning.compress.prune import Counts, count
from headrace.learning.compress.search import Compressed, Tools, allows, axes_of, follow, lay_path, search, whole_plan
from headrace.learning.data.vocabulary import hash_all
from headrace.learning.distributed.collectives import Alone
from headrace.model.network import Network
from headrace.model.quantizing import Bits
from tests.support.networks import TEXT, random_network

NETWORK = random_network(5, labels=3, dimensions=32, filters=16, extra_words=200, extra_bigrams=300)
COUNTS = count(NETWORK, hash_all([TEXT, "good film", "not bad"], NETWORK.max_tokens), Alone())
ORIGINAL = Score(macro_f1=0.9, cross_entropy=0.3, size=float_bytes(NETWORK))


def kept_share(network: Network) -> float:
    """How much is left of NETWORK, in floats."""
    return float_bytes(network) / float_bytes(NETWORK)


def scoring(cost: Callable[[Network, Bits], float]) -> Callable[[Network, Bits], Score]:
    """A score whose cross entropy is raised by ``cost`` as a share, and macro-F1 lowered by a hundredth of that."""

    def score(network: Network, bits: Bits) -> Score:
        rise = cost(network, bits)
        return Score(
            macro_f1=ORIGINAL.macro_f1 - rise / 100,
            cross_entropy=ORIGINAL.cross_entropy * (1 + rise),
            size=round(1000 * kept_share(network)),
        )

    return score


def searched(
    cost: Callable[[Network, Bits], float],
    *,
    points: float = 0.5,
    refit_wide: Callable[[Network], Network] = lambda network: network,
    tune_convolution: Callable[[Network], Network] = lambda network: network,
) -> tuple[Compressed, list[Point]]:
    told: list[Point] = []
    tools = Tools(score=scoring(cost), refit_wide=refit_wide, tune_convolution=tune_convolution)
    return search(NETWORK, COUNTS, ORIGINAL, Budget(points=points), tools, told.append), told


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_every_step_of_a_path_makes_one_thing_smaller_down_to_the_least(data: st.DataObject) -> None:
    axes = axes_of(NETWORK)
    costs = {
        field: data.draw(st.lists(st.floats(-1, 1), min_size=len(v), max_size=len(v))) for field, v in axes.items()
    }
    before = whole_plan(NETWORK)
    for plan in lay_path(NETWORK, axes, costs):
        changed = [field for field in axes if getattr(plan, field) != getattr(before, field)]
        assert len(changed) == 1
        assert artifact_bytes(NETWORK, plan) < artifact_bytes(NETWORK, before)
        before = plan
    assert all(getattr(before, field) == values[-1] for field, values in axes.items())


def test_a_coarse_search_tries_fewer_values_between_the_same_ends() -> None:
    fine, coarse = axes_of(NETWORK), axes_of(NETWORK, coarse=True)
    for field, values in coarse.items():
        assert (values[0], values[-1]) == (fine[field][0], fine[field][-1])
        assert set(map(str, values)) < set(map(str, fine[field]))


def test_a_coarse_search_scores_fewer_networks_and_stays_inside_the_budget() -> None:
    scored = dict.fromkeys((False, True), 0)
    for coarse in scored:
        cost = scoring(lambda network, _: 0.2 * (1 - kept_share(network)))

        def score(network: Network, bits: Bits, coarse: bool = coarse, cost=cost) -> Score:
            scored[coarse] += 1
            return cost(network, bits)

        tools = Tools(score=score, refit_wide=lambda one: one, tune_convolution=lambda one: one)
        budget = Budget(points=0.5, coarse=coarse)
        found = search(NETWORK, COUNTS, ORIGINAL, budget, tools, lambda _: None)
        assert allows(budget, ORIGINAL, found.curve.chosen.score)
    assert scored[True] * 3 < scored[False] * 2


def test_what_costs_much_comes_last() -> None:
    axes = axes_of(NETWORK)
    for dear in axes:
        costs = {
            field: [float(place) if field == dear else 0.0 for place in range(len(v))] for field, v in axes.items()
        }
        path = list(lay_path(NETWORK, axes, costs))
        untouched = path[-len(axes[dear])]
        assert getattr(untouched, dear) == axes[dear][0], dear
        assert all(getattr(untouched, field) == axes[field][-1] for field in axes if field != dear)


def test_the_smallest_network_is_taken_where_nothing_costs_anything() -> None:
    found, told = searched(lambda *_: 0.0)
    axes = axes_of(NETWORK)
    assert found.curve.points == tuple(told)
    assert found.curve.chosen.plan == Plan(**{field: values[-1] for field, values in axes.items()})
    assert len(found.network.word_hashes) == round(axes["words"][-1] * len(NETWORK.word_hashes))


def test_the_whole_network_is_taken_where_the_budget_allows_no_other() -> None:
    found, _ = searched(lambda network, bits: 0.0 if network is NETWORK and bits == Bits() else 9.0)
    assert found.network is NETWORK
    assert found.curve.chosen.plan == whole_plan(NETWORK)
    assert found.curve.chosen.tuning is Tuning.NONE


@settings(deadline=None, max_examples=15)
@given(slope=st.floats(0.01, 1))
def test_what_is_taken_is_within_the_budget_and_the_next_smaller_is_not(slope: float) -> None:
    found, _ = searched(lambda network, _: slope * (1 - kept_share(network)))
    chosen = found.curve.chosen
    assert allows(Budget(), ORIGINAL, chosen.score)
    trained = [point for point in found.curve.points if point.tuning is not Tuning.NONE]
    assert all(point.score.size >= chosen.score.size for point in trained if point.within)


def test_a_larger_budget_gives_a_network_no_larger() -> None:
    sizes = []
    for points in (0.0, 0.5, 2.0, 8.0):
        found, _ = searched(lambda network, _: 0.2 * (1 - kept_share(network)), points=points)
        sizes.append(found.curve.chosen.score.size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


@pytest.mark.parametrize(
    ("of_wide", "of_both", "expected"), [(0.0, 0.02, Tuning.WIDE), (0.02, 0.0, Tuning.BOTH), (0.0, 0.0, Tuning.WIDE)]
)
def test_the_convolution_is_tuned_only_where_that_makes_it_better(
    of_wide: float, of_both: float, expected: Tuning
) -> None:
    def marked(bias: float) -> Callable[[Network], Network]:
        return lambda network: replace(network, head_bias=np.full_like(network.head_bias, bias))

    found, _ = searched(
        lambda network, _: {7.0: of_wide, 8.0: of_both}.get(float(network.head_bias[0]), 0.01),
        refit_wide=marked(7.0),
        tune_convolution=marked(8.0),
    )
    assert found.curve.chosen.tuning is expected
    assert found.network.head_bias[0] == (7.0 if expected is Tuning.WIDE else 8.0)


@pytest.mark.parametrize("tuning", list(Tuning))
def test_another_network_follows_in_the_same_way(tuning: Tuning) -> None:
    other = random_network(6, labels=3, dimensions=32, filters=16, extra_words=300, extra_bigrams=300)
    counts = count(other, hash_all([TEXT], other.max_tokens), Alone())
    done: list[str] = []

    def tell(name: str) -> Callable[[Network], Network]:
        return lambda network: (done.append(name), network)[1]

    tools = Tools(score=scoring(lambda *_: 0.0), refit_wide=tell("wide"), tune_convolution=tell("convolution"))
    plan = Plan(dimensions=8, filters=4, words=0.5, bigrams=0.25, bits=Bits(4, 4))
    network = follow(Point(plan=plan, tuning=tuning, score=ORIGINAL, within=True), other, counts, tools)
    assert done == {Tuning.NONE: [], Tuning.WIDE: ["wide"], Tuning.BOTH: ["wide", "convolution"]}[tuning]
    if tuning is Tuning.NONE:
        assert network is other
    else:
        assert (network.words.shape[1], len(network.filters[0])) == (8, 4)
        assert len(network.word_hashes) == round(0.5 * len(other.word_hashes))


@pytest.mark.parametrize(
    ("macro_f1", "cross_entropy", "allowed"),
    [
        (0.9, 0.3, True),
        (0.8951, 0.3, True),
        (0.894, 0.3, False),
        # Errors may grow by a twentieth, so a third of that is allowed of the cross entropy.
        (0.9, 0.3049, True),
        (0.95, 0.3051, False),
        (0.95, 0.1, True),
    ],
)
def test_a_budget_is_of_macro_f1_and_of_what_goes_with_it_in_cross_entropy(
    macro_f1: float, cross_entropy: float, allowed: bool
) -> None:
    score = Score(macro_f1=macro_f1, cross_entropy=cross_entropy, size=1)
    assert allows(Budget(points=0.5), ORIGINAL, score) is allowed


def test_where_hardly_an_answer_is_wrong_cross_entropy_may_not_rise_by_much_either() -> None:
    original = Score(macro_f1=0.999, cross_entropy=0.01, size=1)
    assert allows(Budget(points=0.5), original, Score(macro_f1=0.999, cross_entropy=0.0104, size=1))
    assert not allows(Budget(points=0.5), original, Score(macro_f1=0.999, cross_entropy=0.0106, size=1))


def test_no_budget_allows_what_is_as_good_only() -> None:
    assert allows(Budget(points=0), ORIGINAL, ORIGINAL)
    assert not allows(Budget(points=0), ORIGINAL, Score(macro_f1=0.9, cross_entropy=0.3001, size=1))


def test_counts_may_be_of_no_occurrence() -> None:
    empty = Counts(
        words=np.zeros_like(COUNTS.words),
        bigrams=np.zeros_like(COUNTS.bigrams),
        mean=COUNTS.mean,
        deviation=np.zeros_like(COUNTS.deviation),
    )
    tools = Tools(score=scoring(lambda *_: 0.0), refit_wide=lambda n: n, tune_convolution=lambda n: n)
    found = search(NETWORK, empty, ORIGINAL, Budget(), tools, lambda _: None)
    assert found.curve.chosen.within
