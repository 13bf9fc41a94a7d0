"""Words share what they have in common while they are trained, and the network that comes out is one of plain words."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.data.vocabulary import choose_vocabulary, hash_all, spelled, word_parts
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.fit.blend import BlendWeights, assemble_network
from headrace.learning.fit.convolution import TextCNN, convolution_logits, flatten, fresh_network
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.learning.fit.wide import WideWeights, wide_features, wide_logits
from headrace.model.network import float_logits
from headrace.model.words import word_hash
from tests.support.exchange import run_ranks

ALIKE = ("refund", "refunded", "refunds", "card", "discard", "is", "水")
SMALL = ConvolutionRecipe(dimensions=6, filters=4)


def kept_of(texts: list[str], exchange: Exchange, max_words: int = 1000) -> np.ndarray:
    texts = hash_all(texts, 50)
    return choose_vocabulary(texts, exchange, max_words=max_words, max_bigrams=0, least_bigram_count=1).words


def parts_of(words, place: int) -> list[int]:
    return words.parts[words.starts[place + 2] : words.starts[place + 3]].tolist()


def alike_network(seed: int = 5) -> TextCNN:
    network = fresh_network(len(ALIKE), 3, SMALL, seed, parts=word_parts(ALIKE, least=3, most=5)).eval()
    assert network.parts.different > 0
    return network


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.sampled_from("abC'é水! "), max_size=20), min_size=1, max_size=8), st.integers(1, 9))
def test_every_kept_word_is_found_as_it_is_written(texts, most):
    kept = kept_of(texts, Alone(), most)
    words = spelled(texts, hash_all(texts, 50), kept, Alone())

    assert [word_hash(word) for word in words] == kept.tolist()


def test_ranks_agree_on_how_words_are_written_though_each_has_read_some():
    texts = ["card Refund", "refunds is", "", "card discard"]
    whole = kept_of(texts, Alone())

    def run(exchange: Exchange) -> tuple[str, ...]:
        own = texts[exchange.rank :: exchange.world]
        return spelled(own, hash_all(own, 50), whole, exchange)

    # Five ranks, the last of which has no text.
    one, *others = run_ranks(5, run)
    assert one == spelled(texts, hash_all(texts, 50), whole, Alone())
    assert all(other == one for other in others)


def test_parts_are_what_two_words_have_with_their_ends():
    parts = word_parts(("card", "discard", "carp"), least=3, most=4)
    both = set(parts_of(parts, 0)) & set(parts_of(parts, 1))

    # "car", "ard", "rd>", "card", "ard>" with discard; "<ca", "car", "<car" with carp.
    assert parts.different == 7
    assert len(parts_of(parts, 0)) == 7
    assert len(both) == 5
    assert len(parts_of(parts, 2)) == 3


def test_short_words_and_words_unlike_all_others_have_no_parts():
    parts = word_parts(("is", "it", "水", "refund", "wine"), least=3, most=5)

    assert parts.different == 0
    assert parts.starts.tolist() == [0] * 8


def test_a_word_is_its_own_row_and_its_parts_over_the_root_of_their_number():
    network = alike_network()
    table = network.words.weight.detach().numpy()
    first_part = len(ALIKE) + 2
    vectors = network.word_vectors().numpy()

    assert not vectors[0].any()
    for place in range(len(ALIKE)):
        own = parts_of(network.parts, place)
        expected = table[place + 2] + table[[first_part + part for part in own]].sum(axis=0) / max(len(own), 1) ** 0.5
        np.testing.assert_allclose(vectors[place + 2], expected, rtol=1e-5)


def test_learning_about_a_word_teaches_those_spelled_alike_and_no_others():
    network = alike_network()
    before = network.word_vectors()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    batch = flatten([np.array([2, 2])], 4)
    torch.nn.functional.cross_entropy(network(batch), torch.tensor([0])).backward()
    optimizer.step()
    moved = (network.word_vectors() - before).abs().sum(dim=1) > 0

    assert dict(zip(ALIKE, moved[2:].tolist(), strict=True)) == {word: word.startswith("refund") for word in ALIKE}
    assert set(np.flatnonzero(network.words.weight.grad.to_dense().any(dim=1))) <= set(network.table_rows(batch.rows))


def test_the_assembled_network_answers_like_the_parts_it_was_trained_with():
    texts = ["refund is", "card refunds discard refunded", "", "unseen 水 card"]
    hashed = hash_all(texts, 50)
    kept = np.array([word_hash(word) for word in ALIKE], np.uint64)
    vocabulary = choose_vocabulary(hashed, Alone(), max_words=0, max_bigrams=3, least_bigram_count=1)
    vocabulary = type(vocabulary)(kept, vocabulary.bigrams)
    convolution = alike_network()
    wide = WideWeights(torch.randn(vocabulary.columns, 3), torch.randn(3))
    weights = BlendWeights(0.7, 1.4)
    network = assemble_network(("a", "b", "c"), 50, vocabulary, convolution, wide, weights)
    features = wide_features(hashed.hashes, hashed.starts, vocabulary.words, vocabulary.bigrams)
    expected = weights.convolution * convolution_logits(convolution, hashed.rows(kept))
    expected += weights.wide * wide_logits(*wide, features)

    assert network.words.shape == (len(ALIKE) + 2, SMALL.dimensions)
    np.testing.assert_allclose(float_logits(network, texts), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_known_of_a_word_is_where_it_begins():
    known = np.arange(len(ALIKE) * SMALL.dimensions, dtype=np.float32).reshape(len(ALIKE), -1)
    parts = word_parts(ALIKE, least=3, most=5)
    plain, informed = (
        fresh_network(len(ALIKE), 3, SMALL, 5, parts=parts, known=begin).words.weight.detach().numpy()
        for begin in (None, known)
    )

    np.testing.assert_allclose(informed[2 : 2 + len(ALIKE)] - plain[2 : 2 + len(ALIKE)], known, atol=1e-5)
    np.testing.assert_array_equal(informed[2 + len(ALIKE) :], plain[2 + len(ALIKE) :])
