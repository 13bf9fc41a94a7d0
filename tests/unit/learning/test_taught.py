"""Rows that a teacher labelled train beside human rows, and never judge."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Part, Parts, Split, shard, split, whole, with_taught
from headrace.learning.data.spreading import find_neighbours, spread
from headrace.learning.data.taught import NO_TAUGHT, Taught, make_taught, read_taught, write_taught
from headrace.learning.data.validation import clean, text_keys
from headrace.learning.data.vocabulary import choose_vocabulary, hash_all, seen_vectors
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, Recipe, TeachingRecipe, WideRecipe
from headrace.learning.fit.teaching import NOTHING, Lessons, Option, as_split, cross_folds
from headrace.learning.fit.train import Epoch, Trained, train
from headrace.learning.fit.wide import fit_wide, wide_features
from headrace.learning.package import lineage_of, pack
from tests.support.exchange import run_ranks
from tests.unit.learning.test_train import orders

CLASSES = ("object", "subject")
SMALL = Recipe(
    convolution=ConvolutionRecipe(dimensions=16, filters=32, epochs=4, batch=16, least_steps=1),
    teaching=TeachingRecipe(least_valid=0, weights=(0.0, 1.0)),
    least_valid=0,
    threads=1,
)


def taught_of(rows: Rows, sure: float = 0.9) -> Taught:
    right = np.array([CLASSES.index(label) for label in rows.labels])
    return make_taught(rows.texts, CLASSES, np.where(np.eye(2)[right] == 1, sure, 1 - sure), "teacher@1")


def parts_of(human: int, machine: Taught, **options: bool) -> Parts:
    rows = orders(human, seed=1)
    return with_taught(whole(split(clean(rows), **options)), machine, UNKEYED, text_keys(rows.texts))


def run(parts: Parts, recipe: Recipe = SMALL) -> Trained:
    return train(parts, recipe, Alone(), NoCheckpoints(), clock=lambda: 0.0)


def names(part: Part, count: int) -> list[str]:
    texts = [f"text {number}" for number in range(60 * count)]
    return [text for text, key in zip(texts, text_keys(texts), strict=True) if UNKEYED.part_of(key) is part][:count]


def test_a_persons_label_outranks_a_teachers_of_the_same_text():
    texts = names(Part.TRAIN, 40)
    human = Rows(tuple(texts[:30]), ("a", "b") * 15)
    machine = make_taught([text.upper() for text in texts], ("a", "b"), np.full((40, 2), 0.5), "t")
    parts = whole(split(clean(human), folds=True, test=orders(20)))
    parts = with_taught(parts, machine, UNKEYED, text_keys(human.texts))

    assert parts.taught.texts == tuple(text.upper() for text in texts[30:])
    assert parts.dropped["machine-human"] == 30


def test_a_machine_row_that_a_person_may_yet_be_judged_by_does_not_train():
    machine = [name for part in Part for name in names(part, 5)]
    taught = make_taught(machine, CLASSES, np.full((15, 2), 0.5), "t")
    parts = parts_of(200, taught)

    assert parts.taught.texts == tuple(names(Part.TRAIN, 5))
    assert parts.dropped["machine-held-out"] == 10


def test_what_a_file_of_its_own_judges_by_takes_no_machine_rows_away():
    taught = make_taught(names(Part.TEST, 5) + names(Part.VALID, 5), CLASSES, np.full((10, 2), 0.5), "t")
    rows, test = orders(200, seed=1), orders(20, seed=2)
    parts = whole(split(clean(rows), test=test))

    assert with_taught(parts, taught, UNKEYED, (), {Part.TEST}).taught.texts == tuple(names(Part.TEST, 5))


def test_equal_and_empty_machine_texts_count_once_and_never():
    text = names(Part.TRAIN, 1)[0]
    parts = parts_of(200, make_taught([text, " \n", text.title()], CLASSES, np.full((3, 2), 0.5), "t"))

    assert parts.taught.texts == (text,)
    assert (parts.dropped["machine-duplicate"], parts.dropped["machine-empty"]) == (1, 1)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.floats(0.05, 3), st.floats(0, 4))
def test_soft_targets_sum_to_what_the_text_counts_and_a_low_temperature_leaves_the_best(scores, temperature, weight):
    given_ = np.array([scores]) / sum(scores)
    taught = make_taught(["a"], [str(place) for place in range(len(scores))], given_, "t")
    weighted = msgspec.structs.replace(taught, weights=np.array([weight], np.float32))

    assert weighted.targets(temperature).sum() == pytest.approx(weight, rel=1e-4, abs=1e-6)
    if (given_ < given_.max() - 0.05).sum() == len(scores) - 1:
        assert taught.targets(0.001)[0].tolist() == (given_ == given_.max()).astype(float)[0].tolist()
    if given_.min() > 0.02:
        np.testing.assert_allclose(taught.targets(1.0), given_, rtol=1e-3)


TEXTS = st.lists(st.text(min_size=1).filter(lambda text: text.isprintable()), max_size=4)


@settings(deadline=None, max_examples=30)
@given(TEXTS, st.lists(st.floats(0.125, 1, width=32), min_size=2, max_size=2))
def test_machine_labels_are_read_from_a_file_as_they_were_written(tmp_path_factory, texts, scores):
    path = tmp_path_factory.mktemp("taught") / "labels.jsonl"
    rows = np.tile(np.array(scores) / sum(scores), (len(texts), 1)).reshape(len(texts), 2)
    taught = make_taught(texts, CLASSES, rows, "teacher@1")
    write_taught(path, taught)
    found = read_taught(path)

    assert found.texts == taught.texts
    if texts:
        assert (found.classes, found.origins) == (taught.classes, ("teacher@1",))
        np.testing.assert_allclose(found.probabilities, taught.probabilities, rtol=1e-5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a"}', "line 1: no machine label: .*scores"),
        ('{"text": "a", "scores": {"x": 0.5}, "teacher": "t"}', "no probabilities"),
        ('{"text": "a", "scores": {"x": 2, "y": -1}, "teacher": "t"}', "no probabilities"),
        ('{"text": "a", "scores": {"x": 1}, "teacher": "t", "weight": -1}', "weight"),
    ],
)
def test_a_file_that_holds_no_machine_labels_is_refused_in_words(tmp_path, line, said):
    path = tmp_path / "labels.jsonl"
    path.write_text(line)

    with pytest.raises(DatasetError, match=said):
        read_taught(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"absent\.jsonl can't be read"):
        read_taught(tmp_path / "absent.jsonl")


def test_one_hot_targets_fit_the_wide_part_as_class_indexes_do():
    texts = hash_all(["good wine", "bad water", "good water", "bad bad wine"], 10)
    kept = choose_vocabulary(texts, Alone(), max_words=9, max_bigrams=9, least_bigram_count=1)
    features = wide_features(texts.hashes, texts.starts, kept.words, kept.bigrams)
    places = np.array([0, 1, 0, 1])
    hard = fit_wide(features, places, kept.columns, 2, WideRecipe(), Alone())
    soft = fit_wide(features, np.eye(2, dtype=np.float32)[places], kept.columns, 2, WideRecipe(), Alone())

    torch.testing.assert_close(soft.weights, hard.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(soft.bias, hard.bias, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def helped() -> tuple[Parts, Trained]:
    parts = parts_of(30, taught_of(orders(400, seed=5)))
    # Without bigrams only the convolution can learn it, and for that there are too few human rows.
    recipe = msgspec.structs.replace(SMALL, max_bigrams=0, teaching=TeachingRecipe(least_valid=100, weights=(0.0, 1.0)))
    return parts, run(parts, recipe)


def test_few_human_rows_and_a_teachers_are_learnt_together(helped):
    parts, trained = helped
    packed = pack(trained, parts, lineage_of(parts, "orders", SMALL, Alone()), Alone())
    lineage = packed.artifact.about.lineage

    assert trained.choices[0].weight == 1
    assert trained.choices[0].accuracy > trained.choices[1].accuracy
    assert {choice.weight for choice in trained.choices} == {0, 1}
    assert (lineage.machine_rows, lineage.machine_weight, lineage.teachers) == (len(parts.taught), 1.0, ("teacher@1",))
    assert not lineage.unproven
    assert packed.artifact.about.metrics["validation_rows"] == parts.rows


def test_rows_of_a_teacher_who_is_wrong_are_left_out_and_change_nothing():
    right = orders(300, seed=5)
    wrong = taught_of(Rows(right.texts, tuple(CLASSES[1 - CLASSES.index(label)] for label in right.labels)), 0.99)
    with_them, alone = run(parts_of(400, wrong)), run(whole(split(clean(orders(400, seed=1)))))

    assert with_them.choices[0].weight == 0
    np.testing.assert_array_equal(with_them.network.words, alone.network.words)
    np.testing.assert_array_equal(with_them.network.wide_words, alone.network.wide_words)
    assert with_them.epochs == alone.epochs


def test_too_few_validation_rows_are_answered_in_turn_and_the_choice_says_how_sure_it_is():
    parts = parts_of(40, taught_of(orders(300, seed=5)))
    recipe = msgspec.structs.replace(SMALL, folds=2, teaching=TeachingRecipe(least_valid=100, weights=(1.0,)))
    choice = run(parts, recipe).choices[0]

    assert (choice.folds, choice.rows) == (2, parts.rows)
    assert choice.interval[0] < choice.accuracy <= choice.interval[1]


def test_without_a_teacher_too_few_validation_rows_are_answered_in_turn_too():
    # Labels that nothing in the texts tells, so that some answers are wrong.
    parts = whole(split(clean(Rows(orders(60, seed=1).texts, CLASSES * 30))))
    recipe = msgspec.structs.replace(SMALL, least_valid=100)
    epochs, few = run(parts, recipe).epochs, run(parts).epochs

    def rows_behind(epochs: tuple[Epoch, ...], rows: int) -> bool:
        return all(abs(epoch.accuracy * rows - round(epoch.accuracy * rows)) < 1e-9 for epoch in epochs)

    assert rows_behind(few, len(parts.split.valid))
    assert rows_behind(epochs, parts.rows)
    assert not rows_behind(epochs, len(parts.split.valid))


def test_rows_that_can_not_be_asked_about_in_turn_are_validated_as_they_were_split():
    rows = Rows(tuple(names(Part.TRAIN, 2)), CLASSES)
    parts = whole(Split(train=rows, valid=orders(4), test=orders(20), held_out=0))
    lone = msgspec.structs.replace(parts, split=msgspec.structs.replace(parts.split, valid=rows.take([0])))
    assert run(lone, msgspec.structs.replace(SMALL, least_valid=100)).chosen.accuracy in {0.0, 1.0}


def test_without_any_human_row_a_teachers_are_divided_and_the_version_is_unproven():
    nothing = Rows((), ())
    empty = whole(split(clean(orders(200)), folds=True))
    empty = msgspec.structs.replace(
        empty, split=msgspec.structs.replace(empty.split, train=nothing, valid=nothing, test=nothing), labels=(), rows=0
    )
    parts = with_taught(empty, taught_of(orders(400, seed=5)), UNKEYED, ())
    trained = run(parts)
    packed = pack(trained, parts, lineage_of(parts, "orders", SMALL, Alone()), Alone())

    assert parts.unproven
    assert packed.artifact.about.lineage.unproven
    assert set(parts.taught.texts).isdisjoint(parts.split.valid.texts + parts.split.test.texts)
    assert packed.report.rows == len(parts.split.test) > 0


def test_no_machine_rows_leave_parts_and_digest_as_they_were():
    parts = whole(split(clean(orders(200))))

    assert parts.taught is NO_TAUGHT
    assert with_taught(parts, make_taught([" "], CLASSES, np.full((1, 2), 0.5), "t"), UNKEYED, ()).digest == (
        parts.digest
    )
    assert b"teaching" not in msgspec.json.encode(Recipe())


def test_words_begin_near_those_that_the_teacher_sees_near():
    views = {"big": [1, 0, 0.1], "large": [1, 0, 0], "red": [0, 1, 0], "blue": [0, 0.9, 0]}
    words = ("big", "", "large", "red", "blue")
    found = seen_vectors(words, lambda texts: np.array([views[text] for text in texts]), 2, 0.5, Alone())

    assert found.shape == (5, 2)
    assert not found[1].any()
    assert np.linalg.norm(found[0] - found[2]) < 0.2 * np.linalg.norm(found[0] - found[3])
    assert np.sqrt((found[[0, 2, 3, 4]] ** 2).mean()) == pytest.approx(0.5)


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of texts of two kinds, and the kinds."""
    randomness = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    return np.array([[1, 0], [0, 1]])[kinds] + randomness.normal(0, 0.1, (count, 2)), kinds


def test_a_text_that_its_neighbours_contradict_is_given_their_label():
    views, kinds = blobs(60, seed=1)
    scores = np.eye(2, dtype=np.float32)[kinds]
    scores[:6] = scores[:6, ::-1]
    near = find_neighbours(views, Alone())

    assert (spread(scores, near, np.zeros(60, bool), 0.6, Alone()).argmax(axis=1) == kinds).all()
    np.testing.assert_array_equal(spread(scores, near, np.zeros(60, bool), 0.0, Alone()), scores)


def test_a_text_that_is_validated_on_gives_its_neighbours_nothing():
    views, kinds = blobs(60, seed=1)
    scores = np.eye(2, dtype=np.float32)[kinds]
    unknown = np.arange(60) < 20
    told, hidden = scores.copy(), scores.copy()
    hidden[unknown] = 0
    told[unknown] = scores[unknown][:, ::-1]
    near = find_neighbours(views, Alone())
    one, other = (spread(given_, near, unknown, 0.5, Alone())[~unknown] for given_ in (told, hidden))

    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_spread_as_one_does(world):
    views, kinds = blobs(50, seed=2)
    scores = np.eye(2, dtype=np.float32)[kinds]
    alone = spread(scores, find_neighbours(views, Alone()), np.zeros(50, bool), 0.5, Alone())

    def one(exchange: Exchange) -> np.ndarray:
        own = slice(20 * exchange.rank, None if exchange.rank == world - 1 else 20 * exchange.rank + 20)
        near = find_neighbours(views[own], exchange)
        return spread(scores[own], near, np.zeros(len(scores[own]), bool), 0.5, exchange)

    np.testing.assert_allclose(np.concatenate(run_ranks(world, one)), alone, rtol=1e-5)


def test_where_a_teacher_shows_its_view_neighbours_mend_what_it_says():
    rows = orders(300, seed=5)
    kinds = np.array([CLASSES.index(label) for label in rows.labels])
    # One in four is labelled wrongly, and nobody is sure.
    wrong = np.where(np.arange(300) % 4 == 0, 1 - kinds, kinds)
    taught = make_taught(rows.texts, CLASSES, np.where(np.eye(2)[wrong] == 1, 0.8, 0.2), "t")
    kind_of = {
        text: kind
        for all_ in (rows, orders(40, seed=1))
        for text, kind in zip(all_.texts, (CLASSES.index(label) for label in all_.labels), strict=True)
    }

    def embed(texts):
        return np.array([[1.0, len(text) / 1e3, kind_of.get(text, 2)] for text in texts])

    parts = parts_of(40, taught)
    lessons = Lessons(parts, embed, None, Alone())
    known = np.ones(parts.rows, bool)
    plain, mended = (lessons.taught(Option(0.5, share), known) for share in (0.0, 0.8))
    right = [
        np.array([kind_of[text] for text in one.texts]) == one.probabilities.argmax(axis=1) for one in (plain, mended)
    ]

    assert right[0].mean() < 0.8
    assert right[1].mean() > 0.95
    assert mended.targets(1.0).sum(axis=1) == pytest.approx(np.full(len(mended), 0.5), rel=1e-3)
    assert lessons.taught(NOTHING, known) is None
    assert lessons.best_spread([as_split(parts)], (0.0, 0.8)) == 0.8
    assert Lessons(parts, None, None, Alone()).best_spread([as_split(parts)], (0.0, 0.8)) == 0


def test_the_rows_of_a_fold_are_taught_by_a_teacher_that_has_not_learnt_them():
    parts = parts_of(40, taught_of(orders(200, seed=5)))
    seen: list[Rows] = []

    def reteach(rows: Rows) -> np.ndarray:
        seen.append(rows)
        return parts.taught.probabilities

    recipe = msgspec.structs.replace(SMALL, teaching=TeachingRecipe(least_valid=100, weights=(1.0,)))
    trained = train(parts, recipe, Alone(), NoCheckpoints(), clock=lambda: 0.0, reteach=reteach)
    human = parts.split.train + parts.split.valid

    assert trained.choices[0].apart
    assert not run(parts, recipe).choices[0].apart
    assert len(seen) == trained.choices[0].folds == 5
    # Each row is left out once.
    assert sorted(text for rows in seen for text in {*human.texts} - {*rows.texts}) == sorted(human.texts)


def uneven(parts: Parts, rank: int) -> Parts:
    """What the first rank has of ``parts``: all rows of people but forty and a third of the teacher's; or the rest."""
    rows = {0: slice(0, -40), 1: slice(-40, None)}[rank]
    third = len(parts.taught) // 3
    own = [
        Rows(part.texts[rows], part.labels[rows]) for part in (parts.split.train, parts.split.valid, parts.split.test)
    ]
    split_ = msgspec.structs.replace(parts.split, train=own[0], valid=own[1], test=own[2])
    machine = np.arange(third) if rank == 0 else np.arange(third, len(parts.taught))
    return msgspec.structs.replace(parts, split=split_, taught=parts.taught.take(machine))


def test_ranks_with_uneven_rows_of_a_teacher_choose_alike_and_end_with_one_network():
    parts = parts_of(400, taught_of(orders(300, seed=5)))

    def one(exchange: Exchange) -> Trained:
        return train(uneven(parts, exchange.rank), SMALL, exchange, NoCheckpoints(), clock=lambda: 0.0)

    first, second = run_ranks(2, one)
    alone = run(parts)

    assert first.choices == second.choices
    assert [choice.weight for choice in first.choices[:1]] == [choice.weight for choice in alone.choices[:1]]
    for name in ("words", "wide_words"):
        np.testing.assert_array_equal(getattr(first.network, name), getattr(second.network, name))
    # Apart from what the part counts beside the convolution, which takes another path on two ranks.
    fitted, of_one = (found.network.wide_words / np.abs(found.network.wide_words).max() for found in (first, alone))
    np.testing.assert_allclose(fitted, of_one, rtol=0.05, atol=0.02)
    assert first.network.labels == second.network.labels == alone.network.labels


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(2, 4))
def test_a_row_is_validated_once_by_a_fit_that_knows_its_label(labels: list[str], count: int):
    rows = Rows(tuple(f"text {number}" for number in range(len(labels))), tuple(labels))
    parts = whole(Split(train=rows, valid=Rows((), ()), test=Rows((), ()), held_out=0))
    folds = cross_folds(parts, count, Alone())

    for fold in folds:
        assert set(fold.valid.labels) <= set(fold.train.labels)
        assert len(fold.train) + len(fold.valid) == len(rows)
    validated = [text for fold in folds for text in fold.valid.texts]
    assert len(set(validated)) == len(validated)
    alone = [text for text, label in zip(rows.texts, labels, strict=True) if labels.count(label) == 1]
    assert not set(alone) & set(validated)
    # Rows of a label that are never asked about are all of one fold.
    numbers = dict(zip(rows.texts, text_keys(rows.texts), strict=True))
    for label in set(labels):
        left = {text for text, own in zip(rows.texts, labels, strict=True) if own == label} - set(validated)
        assert len({int.from_bytes(numbers[text][8:16], "big") % count for text in left}) <= 1


def test_folds_are_equal_however_many_ranks_hold_the_rows():
    rows = Rows(tuple(f"text {number}" for number in range(60)), tuple("abcdefghijkl" * 5))
    lone = rows + Rows(("alone",), ("z",))
    split_rows = Split(train=lone, valid=Rows((), ()), test=Rows((), ()), held_out=0)

    def validated(exchange: Exchange) -> list[set[str]]:
        return [set(fold.valid.texts) for fold in cross_folds(shard(whole(split_rows), exchange.rank, 3), 2, exchange)]

    expected = [set(fold.valid.texts) for fold in cross_folds(whole(split_rows), 2, Alone())]
    assert [set().union(*of_fold) for of_fold in zip(*run_ranks(3, validated), strict=True)] == expected


def test_one_text_a_label_can_not_show_what_a_teacher_is_worth():
    human = Rows(tuple(names(Part.TRAIN, 2)), CLASSES)
    taught = taught_of(orders(200, seed=3))
    parts = whole(split(clean(human), folds=True, test=orders(20)))
    parts = with_taught(parts, taught, UNKEYED, text_keys(human.texts))
    with pytest.raises(DatasetError, match="2 labelled rows can't show what a teacher's labels are worth"):
        run(parts, msgspec.structs.replace(SMALL, folds=2, teaching=TeachingRecipe()))


def test_a_fold_without_a_row_to_validate_is_not_fitted():
    rows = orders(8, seed=5)
    parts = whole(split(clean(rows), folds=True, test=orders(20)))
    parts = with_taught(parts, taught_of(orders(200, seed=3)), UNKEYED, text_keys(rows.texts))
    validating = [fold for fold in cross_folds(parts, 40, Alone()) if len(fold.valid)]
    assert 1 < len(validating) < 40

    recipe = msgspec.structs.replace(SMALL, folds=40, teaching=TeachingRecipe(weights=(1.0,)))
    choice = run(parts, recipe).choices[0]
    assert (choice.folds, choice.rows) == (len(validating), sum(len(fold.valid) for fold in validating))
