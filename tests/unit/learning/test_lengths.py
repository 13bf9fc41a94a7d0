"""How much of a text is read."""

import pytest

from headrace.learning.data.features import MOST_BY_ITSELF, follow_lengths, word_counts
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts, Split, whole
from headrace.learning.distributed.collectives import Alone
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.backends.interface import open_backend
from headrace.model.words import Texts
from headrace.trainer.settings import MAX_TOKENS
from headrace.worker.stages.infer import Model
from tests.support.networks import random_artifact


def parts_of(*learnt: int, tested: int = 3) -> Parts:
    train = Rows(tuple("word " * length for length in learnt), ("a",) * len(learnt))
    test = Rows(("word " * tested,), ("a",))
    return whole(Split(train=train, valid=Rows((), ()), test=test, held_out=0))


@pytest.mark.parametrize(
    ("longest", "expected"), [(0, 256), (256, 256), (257, 512), (700, 768), (2048, 2048), (50_000, MOST_BY_ITSELF)]
)
def test_as_many_words_are_read_as_the_longest_text_has_up_to_a_bound(longest: int, expected: int) -> None:
    recipe, lengths = follow_lengths(Recipe(), parts_of(5, longest), Alone(), follow=True)
    assert recipe.max_tokens == lengths.max_tokens == expected
    assert lengths.truncated == (longest > expected)


def test_a_number_that_was_said_stands_and_what_it_cuts_is_counted() -> None:
    recipe, lengths = follow_lengths(Recipe(max_tokens=4), parts_of(3, 4, 5, 600, tested=9), Alone(), follow=False)
    assert (recipe.max_tokens, lengths.truncated, lengths.texts, lengths.longest) == (4, 3, 5, 600)


def test_test_rows_do_not_choose_how_much_is_read() -> None:
    recipe, lengths = follow_lengths(Recipe(), parts_of(5, tested=900), Alone(), follow=True)
    assert (recipe.max_tokens, lengths.truncated, lengths.longest) == (256, 1, 900)


def test_the_words_of_unspaced_texts_are_counted_as_they_are_read() -> None:
    assert word_counts(["你好 world", "", "กขค"]).tolist() == [3, 0, 3]


def test_the_settings_bound_is_the_integers() -> None:
    from headrace.model import integers

    assert MAX_TOKENS == integers.MAX_TOKENS


def test_a_worker_counts_the_texts_that_it_cuts() -> None:
    artifact = random_artifact(3, max_tokens=4)
    model = Model("v", artifact.labels, open_backend("cpu", artifact), max_tokens=4)
    assert (
        model.truncated(Texts.of([b"good film good film", b"good film good film good", b"", b"one     \n     two"]))
        == 1
    )
    assert Model("v", artifact.labels, model.backend).truncated(Texts.of([b"a b c d e f"])) == 0
