import random

import msgspec
import pytest

from headrace.training.answering import answer
from headrace.training.cleaning import clean
from headrace.training.dataset import DatasetError, Rows
from headrace.training.packing import Packed, lineage_of, pack
from headrace.training.recipe import ConvolutionRecipe, Recipe
from headrace.training.search import Epoch
from headrace.training.splitting import Split, split
from headrace.training.train import Trained, train

SMALL = Recipe(convolution=ConvolutionRecipe(dimensions=16, filters=32, epochs=6, batch=16), threads=1)


def orders(rows: int, seed: int = 11) -> Rows:
    """Texts whose class is the order of two words, so that counting words alone is no better than a coin."""
    randomness = random.Random(seed)
    filler = [f"w{i}" for i in range(30)]
    texts, labels = [], []
    for _ in range(rows):
        first, second = randomness.choice([("dog", "bites"), ("bites", "dog")])
        words = randomness.choices(filler, k=randomness.randint(3, 8))
        place = randomness.randint(0, len(words))
        texts.append(" ".join([*words[:place], first, second, *words[place:]]))
        labels.append("subject" if first == "dog" else "object")
    return Rows(tuple(texts), tuple(labels))


def run(parts: Split, recipe: Recipe) -> tuple[Trained, Packed]:
    trained = train(parts.train, parts.valid, recipe, on_epoch=lambda _: None, on_refit=lambda *_: None)
    return trained, pack(trained.network, parts.test, lineage_of(parts.train + parts.valid, "orders"))


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(clean(orders(400)))


@pytest.fixture(scope="module")
def first(parts: Split) -> tuple[Trained, Packed]:
    return run(parts, SMALL)


def test_training_learns_what_only_word_order_tells(first):
    _, packed = first

    assert packed.report.accuracy >= 0.95
    assert packed.agreement >= 0.95


def test_the_convolution_alone_learns_it_too(parts):
    # Without bigrams the wide part sees the same words in both classes.
    trained, packed = run(parts, msgspec.structs.replace(SMALL, max_bigrams=0))

    assert packed.report.accuracy >= 0.95
    assert trained.chosen.shares.convolution > trained.chosen.shares.wide


def test_the_same_rows_and_seed_give_the_same_artifact(parts, first):
    assert run(parts, SMALL)[1].artifact.sha256 == first[1].artifact.sha256


def test_another_seed_gives_another_artifact(parts, first):
    assert run(parts, msgspec.structs.replace(SMALL, seed=1))[1].artifact.sha256 != first[1].artifact.sha256


def test_shuffled_labels_are_not_learnt(parts):
    labels = list(parts.train.labels)
    random.Random(2).shuffle(labels)
    _, packed = run(msgspec.structs.replace(parts, train=Rows(parts.train.texts, tuple(labels))), SMALL)

    assert packed.report.accuracy < 0.8


def test_the_search_stops_when_validation_no_longer_becomes_better(parts):
    labels = list(parts.valid.labels)
    random.Random(3).shuffle(labels)
    seen: list[Epoch] = []
    recipe = msgspec.structs.replace(
        SMALL, patience=1, convolution=msgspec.structs.replace(SMALL.convolution, epochs=30)
    )
    refits: list[tuple[int, int]] = []
    trained = train(
        parts.train,
        Rows(parts.valid.texts, tuple(labels)),
        recipe,
        on_epoch=seen.append,
        on_refit=lambda number, total: refits.append((number, total)),
    )

    assert tuple(seen) == trained.epochs
    assert len(seen) < 30
    assert trained.chosen.number == len(seen) - 1
    assert refits == [(number, trained.chosen.number) for number in range(1, trained.chosen.number + 1)]


def test_the_artifact_carries_its_scores_its_lineage_and_canaries_that_it_answers(parts, first):
    from headrace.model.backends.interface import open_backend

    _, packed = first
    about = packed.artifact.about
    backend = open_backend("cpu", packed.artifact)

    assert about.metrics["test_accuracy"] == packed.report.accuracy
    assert about.lineage.rows == len(parts.train) + len(parts.valid)
    assert answer(backend, [canary.text for canary in about.canaries]) == [canary.label for canary in about.canaries]
    assert len(about.canaries) == 2
    assert about.created_at_ms is None


def test_the_lineage_digest_depends_on_every_text_label_and_order():
    digests = {
        lineage_of(Rows(texts, labels), "x").digest
        for texts, labels in ((("a", "b"), ("1", "2")), (("a", "c"), ("1", "2")), (("a", "b"), ("1", "1")))
    } | {lineage_of(Rows(("b", "a"), ("2", "1")), "x").digest}

    assert len(digests) == 4


def test_one_class_alone_is_refused(parts):
    one = Rows(parts.train.texts, ("only",) * len(parts.train))

    with pytest.raises(DatasetError, match="at least two classes, but all rows are 'only'"):
        train(one, one, SMALL, on_epoch=lambda _: None, on_refit=lambda *_: None)
