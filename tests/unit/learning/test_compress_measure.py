"""What a network is worth as an artifact, and the whole compression of a small real one."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

from headrace.learning.compress.curve import (
    Budget,
    Curve,
    Plan,
    Point,
    Score,
    Tuning,
    curve_table,
    draw,
    figures,
    score_float,
    score_quantized,
)
from headrace.learning.compress.prune import Tuner
from headrace.learning.compress.search import Compressor
from headrace.learning.data.features import Material, fit_wide_part, prepare
from headrace.learning.data.files import Rows
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.evaluate import answer, compare
from headrace.learning.fit.blend import BlendWeights, assemble_network
from headrace.learning.fit.convolution import ConvolutionFit, fresh_network
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, Recipe, WideRecipe
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.network import Network, float_logits
from headrace.model.quantizing import Bits, quantize
from tests.support.exchange import run_ranks
from tests.support.networks import TEXT, random_network

NETWORK = random_network(3, labels=3)
TEXTS = [TEXT, "good", "the bad film", "not good", "", "你 好", "don't , !"]
TARGETS = np.array([0, 1, 2, 0, 1, 2, 0])
RECIPE = Recipe(
    max_tokens=16,
    wide=WideRecipe(iterations=5),
    convolution=ConvolutionRecipe(
        dimensions=16, filters=8, widths=(1, 2), epochs=6, batch=16, least_steps=1, dropout=0.1
    ),
)
LABELS = ("fruit", "metal", "river")
WEIGHTS = BlendWeights(0.7, 0.6)


@pytest.mark.parametrize("bits", [Bits(), Bits(4, 4)])
def test_the_score_is_that_of_the_artifacts_answers(bits: Bits) -> None:
    ticks = itertools.count()
    score = score_quantized(NETWORK, bits, TEXTS, TARGETS, Alone(), lambda: next(ticks) * 7e-6)
    artifact = assemble(quantize(NETWORK, bits), About())
    backend = open_backend("reference", artifact)
    report = compare([LABELS[place] for place in TARGETS], answered(answer(backend, TEXTS)))
    assert score.macro_f1 == pytest.approx(report.macro_f1)
    assert score.size == artifact.size
    assert score.latency_us == pytest.approx(1.0)
    logits = backend.logits([text.encode() for text in TEXTS]) * artifact.network.unit
    assert score.cross_entropy == pytest.approx(cross_entropy(logits))


def answered(labels: list[str]) -> list[str]:
    return [LABELS[NETWORK.labels.index(label)] for label in labels]


def cross_entropy(logits: np.ndarray) -> float:
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.log(shares[np.arange(len(TARGETS)), TARGETS]).mean())


def test_the_float_score_is_that_of_the_trained_network() -> None:
    score = score_float(NETWORK, TEXTS, TARGETS, Alone())
    logits = float_logits(NETWORK, TEXTS).astype(np.float64)
    answers = answered([NETWORK.labels[place] for place in logits.argmax(axis=1)])
    assert score.macro_f1 == pytest.approx(compare([LABELS[place] for place in TARGETS], answers).macro_f1)
    assert score.cross_entropy == pytest.approx(cross_entropy(logits))
    assert score.latency_us is None


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_that_share_the_rows_come_to_the_same_score(world: int) -> None:
    alone = score_quantized(NETWORK, Bits(), TEXTS, TARGETS, Alone(), lambda: 0.0)

    def of_rank(exchange: Exchange) -> Score:
        own = slice(exchange.rank, None, exchange.world)
        return score_quantized(NETWORK, Bits(), TEXTS[own], TARGETS[own], exchange, lambda: 0.0)

    scores = run_ranks(world, of_rank)
    assert all(score == scores[0] for score in scores)
    assert scores[0].macro_f1 == alone.macro_f1
    assert scores[0].cross_entropy == pytest.approx(alone.cross_entropy)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(count: int, seed: int) -> Rows:
    """Texts of which some words tell the class, among many that do not and that are rare."""
    randomness = np.random.default_rng(seed)
    telling = {"fruit": ("apple", "pear", "plum"), "metal": ("iron", "zinc", "tin"), "river": ("rhine", "nile", "po")}
    labels = [LABELS[place] for place in randomness.integers(len(LABELS), size=count)]
    texts = []
    for label in labels:
        other = [f"word{place}" for place in randomness.zipf(1.3, size=6) % 400]
        texts.append(" ".join(randomness.permutation([*other, *randomness.choice(telling[label], 2)])))
    return Rows(tuple(texts), tuple(labels))


def trained(exchange: Exchange) -> tuple[Network, Material]:
    material = prepare(rows(160, 0), LABELS, RECIPE, exchange)
    fit = ConvolutionFit(
        fresh_network(len(material.vocabulary.words), len(LABELS), RECIPE.convolution, 0),
        material.rows(),
        material.targets,
        recipe=RECIPE.convolution,
        seed=0,
        exchange=exchange,
    )
    while fit.done < RECIPE.convolution.epochs:
        fit.epoch()
    wide = fit_wide_part(material, RECIPE, exchange)
    network = assemble_network(LABELS, RECIPE.max_tokens, material.vocabulary, fit.network, wide, WEIGHTS)
    return network, material


@pytest.mark.usefixtures("one_thread")
def test_a_network_is_compressed_within_its_budget_and_another_follows() -> None:
    network, material = trained(Alone())
    valid = rows(200, 1)
    targets = np.array([LABELS.index(label) for label in valid.labels])
    compressor = Compressor(valid.texts, targets, WEIGHTS, RECIPE, Alone(), lambda: 0.0)
    found = compressor.search(network, material, Budget(points=0.5), lambda _: None)
    chosen = found.curve.chosen
    assert chosen.within
    assert chosen.score.macro_f1 >= found.curve.original.macro_f1 - 0.005
    again = score_quantized(found.network, chosen.plan.bits, valid.texts, targets, Alone(), lambda: 0.0)
    assert again == chosen.score

    followed = compressor.follow(chosen, network, material)
    assert np.array_equal(followed.words, found.network.words)
    size = assemble(quantize(followed, chosen.plan.bits), About()).size
    told = figures(found.curve, network, followed, size)
    assert told["ratio"] == found.curve.original.size / size > 10
    assert told["kept_words"] < len(network.word_hashes)


@pytest.mark.usefixtures("one_thread")
def test_tuning_fits_what_is_left_to_the_rows() -> None:
    network, material = trained(Alone())
    valid = rows(200, 1)
    targets = np.array([LABELS.index(label) for label in valid.labels])
    broken = replace(network, head=network.head * 0, wide_words=network.wide_words * 0)
    tuner = Tuner(WEIGHTS, material, RECIPE, Alone())
    refitted = tuner.refit_wide(broken)
    tuned = tuner.tune_convolution(refitted)
    losses = [score_float(one, valid.texts, targets, Alone()).cross_entropy for one in (broken, refitted, tuned)]
    assert losses[0] > losses[1] > losses[2]
    assert np.array_equal(refitted.words, broken.words)
    assert np.array_equal(tuned.wide_words, refitted.wide_words)


def a_point(size: int, *, tuning: Tuning = Tuning.NONE, within: bool = True) -> Point:
    plan = Plan(dimensions=16, filters=32, words=0.35, bigrams=0.7, bits=Bits(wide=4))
    score = Score(macro_f1=0.8125, cross_entropy=0.5, size=size, latency_us=2.5)
    return Point(plan=plan, tuning=tuning, score=score, within=within)


CURVE = Curve(
    budget=Budget(),
    original=Score(macro_f1=0.82, cross_entropy=0.48, size=5_000_000),
    chosen=a_point(80_000, tuning=Tuning.WIDE),
    points=(a_point(1_200_000), a_point(80_000, tuning=Tuning.WIDE), a_point(40_000, tuning=Tuning.BOTH, within=False)),
)


def test_a_curve_reads_back_from_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(CURVE), type=Curve) == CURVE


def test_the_picture_is_svg_with_all_its_words_and_the_same_each_time() -> None:
    picture = draw(CURVE, "version 1")
    assert picture == draw(CURVE, "version 1")
    text = " ".join(ET.fromstring(picture).itertext())  # noqa: S314 - written here
    for word in ("version 1", "artifact, kB", "fp32", "taken", "budget", "convolution tuned"):
        assert word in text


def test_the_table_shows_the_largest_first_and_marks_the_one_taken() -> None:
    console = Console(file=StringIO(), width=160)
    console.print(curve_table(CURVE))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in shown.splitlines() if "81.25%" in line]
    assert ["->" in line for line in lines] == [False, True, False]
    assert "1,200" in lines[0]
    assert "linear" in lines[1]
