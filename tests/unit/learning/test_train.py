import random

import msgspec
import pytest

from headrace.files import DatasetError
from headrace.learning.compress.curve import Budget
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts, Split, shard, split, whole
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.distributed.job import NoCheckpoints, StoredCheckpoints
from headrace.learning.evaluate import answer
from headrace.learning.fit.blend import BlendWeights
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, Recipe
from headrace.learning.fit.train import Epoch, Steps, Trained, train
from headrace.learning.package import Packed, lineage_of, pack
from tests.support.exchange import run_ranks
from tests.support.places import ANYWHERE


def STOPPED() -> float:  # noqa: N802 - a clock that stands
    return 0.0


SMALL = Recipe(convolution=ConvolutionRecipe(dimensions=16, filters=32, epochs=6, batch=16, least_steps=1), threads=1)


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


def run(
    parts: Split, recipe: Recipe, steps: Steps | None = None, budget: Budget | None = None
) -> tuple[Trained, Packed]:
    rows = whole(parts)
    trained = train(rows, recipe, Alone(), NoCheckpoints(), clock=STOPPED, budget=budget, steps=steps or Steps())
    return trained, pack(trained, rows, lineage_of(rows, "orders", recipe, Alone()), Alone())


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
    assert trained.chosen.weights.convolution > trained.chosen.weights.wide


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
    steps = Steps(epoch=seen.append, refit=lambda number, total: refits.append((number, total)))
    shuffled = msgspec.structs.replace(parts, valid=Rows(parts.valid.texts, tuple(labels)))
    trained = train(whole(shuffled), recipe, Alone(), NoCheckpoints(), clock=STOPPED, steps=steps)

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


def test_the_digest_of_all_rows_depends_on_every_text_label_and_order(parts):
    def digest(train: Rows) -> str:
        return whole(msgspec.structs.replace(parts, train=train)).digest

    digests = {
        digest(Rows(texts, labels))
        for texts, labels in ((("a", "b"), ("1", "2")), (("a", "c"), ("1", "2")), (("a", "b"), ("1", "1")))
    } | {digest(Rows(("b", "a"), ("2", "1")))}

    assert len(digests) == 4


def test_one_class_alone_is_refused(parts):
    one = Rows(parts.train.texts, ("only",) * len(parts.train))
    rows = whole(msgspec.structs.replace(parts, train=one, valid=one))

    with pytest.raises(DatasetError, match="at least two classes, but all rows are 'only'"):
        train(rows, SMALL, Alone(), NoCheckpoints(), clock=STOPPED)


class StoppedError(Exception):
    """What ends a training in the middle."""


def test_a_checkpoint_of_an_older_training_is_read():
    stored = {"number": 3, "loss": 0.5, "accuracy": 0.9, "cross_entropy": 0.3, "shares": [0.7, 0.6]}

    assert msgspec.convert([stored], list[Epoch])[0].weights == BlendWeights(0.7, 0.6)


@pytest.mark.parametrize(("stage", "epoch"), [("epoch", 2), ("refit", 1)])
def test_an_interrupted_training_goes_on_from_its_checkpoint_to_the_same_weights(parts, first, tmp_path, stage, epoch):
    def stop(number: int) -> None:
        if number == epoch:
            raise StoppedError

    interrupting = {
        "epoch": Steps(epoch=lambda seen: stop(seen.number)),
        "refit": Steps(refit=lambda number, _: stop(number)),
    }
    rows, checkpoints = whole(parts), StoredCheckpoints(str(tmp_path), Alone(), ANYWHERE)
    with pytest.raises(StoppedError):
        train(rows, SMALL, Alone(), checkpoints, clock=STOPPED, steps=interrupting[stage])
    later: list[int] = []
    trained = train(
        rows, SMALL, Alone(), checkpoints, clock=STOPPED, steps=Steps(epoch=lambda seen: later.append(seen.number))
    )
    packed = pack(trained, rows, lineage_of(rows, "orders", SMALL, Alone()), Alone())

    assert later == ([] if stage == "refit" else list(range(epoch + 1, len(trained.epochs) + 1)))
    assert packed.artifact.sha256 == first[1].artifact.sha256


def test_a_search_whose_checkpoint_kept_no_losses_begins_anew(parts, first, tmp_path):
    class Older(StoredCheckpoints):
        def save(self, name, state):
            super().save(name, {key: value for key, value in state.items() if key != "lost"})

    def stop(seen: Epoch) -> None:
        if seen.number == 2:
            raise StoppedError

    rows, older = whole(parts), Older(str(tmp_path), Alone(), ANYWHERE)
    with pytest.raises(StoppedError):
        train(rows, SMALL, Alone(), older, clock=STOPPED, steps=Steps(epoch=stop))
    trained = train(rows, SMALL, Alone(), StoredCheckpoints(str(tmp_path), Alone(), ANYWHERE), clock=STOPPED)
    packed = pack(trained, rows, lineage_of(rows, "orders", SMALL, Alone()), Alone())
    assert packed.artifact.sha256 == first[1].artifact.sha256


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_with_uneven_rows_end_with_one_network_that_learnt_it(parts, world):
    # Rank 0 has most rows, and of three ranks the last has none at all.
    def rows_of(rank: int) -> Parts:
        rows = whole(parts)
        places = {0: slice(0, -40), 1: slice(-40, None)}.get(rank, slice(0, 0))
        own = [Rows(part.texts[places], part.labels[places]) for part in (parts.train, parts.valid, parts.test)]
        split = Split(train=own[0], valid=own[1], test=own[2], held_out=0)
        return msgspec.structs.replace(rows, split=split)

    def one(exchange: Exchange) -> tuple[str, float]:
        trained = train(rows_of(exchange.rank), SMALL, exchange, NoCheckpoints(), clock=STOPPED)
        lineage = lineage_of(rows_of(exchange.rank), "orders", SMALL, exchange)
        packed = pack(trained, rows_of(exchange.rank), lineage, exchange)
        return packed.artifact.sha256, packed.report.accuracy

    ends = run_ranks(world, one)

    assert len(set(ends)) == 1
    assert ends[0][1] >= 0.9


@pytest.mark.parametrize("world", [1, 2])
def test_a_budget_gives_a_much_smaller_artifact_that_answers_nearly_as_well(parts, first, world):
    def one(exchange: Exchange) -> Packed:
        rows = shard(whole(parts), exchange.rank, exchange.world)
        trained = train(rows, SMALL, exchange, NoCheckpoints(), clock=STOPPED, budget=Budget(points=2))
        return pack(trained, rows, lineage_of(rows, "orders", SMALL, exchange), exchange)

    ends = run_ranks(world, one)
    about = ends[0].artifact.about

    assert {packed.artifact.sha256 for packed in ends} == {ends[0].artifact.sha256}
    assert ends[0].artifact.size < first[1].artifact.size / 2
    assert about.compression["ratio"] > 5
    assert ends[0].report.accuracy >= 0.9


def test_the_threshold_lets_the_wanted_share_of_validation_rows_through(parts):
    rows = whole(parts)
    trained = train(rows, SMALL, Alone(), NoCheckpoints(), clock=STOPPED, accept=0.8)
    packed = pack(trained, rows, lineage_of(rows, "orders", SMALL, Alone()), Alone())

    assert packed.artifact.about.threshold == trained.threshold
    assert 0.5 < trained.threshold < 1
