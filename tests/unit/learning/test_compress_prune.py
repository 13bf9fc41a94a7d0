"""Pruning: what is kept, that it stays what it was, and that what is dropped is missed least."""

from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.compress.curve import artifact_bytes, float_bytes, table_bytes
from headrace.learning.compress.prune import Counts, apply_plan, count, with_dimensions
from headrace.learning.compress.search import whole_plan
from headrace.learning.data.vocabulary import hash_all
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.model.artifact import arrays_of
from headrace.model.network import FIRST_WORD_ROW, Network, float_logits
from headrace.model.quantizing import Bits, quantize
from tests.support.exchange import run_ranks
from tests.support.networks import TEXT, VOCABULARY, random_network

NETWORK = random_network(5, labels=3, dimensions=12, filters=6, extra_words=30, extra_bigrams=20)


def even_counts(network: Network) -> Counts:
    features = len(network.filter_bias)
    return Counts(
        words=np.ones(len(network.words), np.int64),
        bigrams=np.ones(len(network.bigram_hashes), np.int64),
        mean=np.zeros(features, np.float32),
        deviation=np.ones(features, np.float32),
    )


def pruned(network: Network, counts: Counts | None = None, **kept: float) -> Network:
    plan = msgspec.structs.replace(whole_plan(network), **kept)
    return apply_plan(network, plan, counts or even_counts(network))


def test_a_plan_that_keeps_everything_changes_nothing() -> None:
    same = pruned(NETWORK)
    for field in fields(Network):
        before, after = getattr(NETWORK, field.name), getattr(same, field.name)
        if field.name == "filters":
            assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
        else:
            assert np.array_equal(before, after), field.name


def test_the_words_kept_are_those_that_move_logits_most_in_their_order() -> None:
    wide = np.zeros_like(NETWORK.wide_words)
    wide[FIRST_WORD_ROW + 4] = [3, -3, 0]
    wide[FIRST_WORD_ROW + 2] = [1, -1, 0]
    # Large, but equal for all labels: it moves no answer.
    wide[FIRST_WORD_ROW + 7] = 50
    counts = even_counts(NETWORK)
    counts.words[FIRST_WORD_ROW + 2] = 16
    share = 2 / len(NETWORK.word_hashes)
    smaller = pruned(replace(NETWORK, wide_words=wide), counts, words=share)
    assert smaller.word_hashes.tolist() == NETWORK.word_hashes[[2, 4]].tolist()
    assert np.array_equal(smaller.words, NETWORK.words[[0, 1, FIRST_WORD_ROW + 2, FIRST_WORD_ROW + 4]])
    assert np.array_equal(smaller.wide_words, wide[[0, 1, FIRST_WORD_ROW + 2, FIRST_WORD_ROW + 4]])


def test_a_dropped_word_is_an_unknown_word() -> None:
    smaller = pruned(NETWORK, words=0.3)
    dropped = {word for word in VOCABULARY if hash_all([word], 1).hashes[0] not in smaller.word_hashes}
    assert 0 < len(dropped) < len(VOCABULARY)
    word, kept = min(dropped), min(set(VOCABULARY) - dropped)
    texts = [f"{kept} {kept} {word}", f"{kept} {kept} neverseen"]
    assert np.array_equal(
        *float_logits(
            replace(smaller, bigram_hashes=smaller.bigram_hashes[:0], wide_bigrams=smaller.wide_bigrams[:0]), texts
        )
    )


def test_the_bigrams_kept_are_those_that_move_logits_most() -> None:
    wide = np.zeros_like(NETWORK.wide_bigrams)
    wide[3], wide[1] = [1, 0, 0], [0, 2, 0]
    smaller = pruned(replace(NETWORK, wide_bigrams=wide), bigrams=2 / len(wide))
    assert smaller.bigram_hashes.tolist() == NETWORK.bigram_hashes[[1, 3]].tolist()
    assert smaller.wide_bigrams.tolist() == wide[[1, 3]].tolist()


def test_dropping_filters_that_answer_the_same_to_every_text_changes_no_logit() -> None:
    texts = [TEXT, "good film", "not bad !", "你 好"]
    biases = NETWORK.filter_bias.copy()
    # Of each width, filters 1 and 4 never rise above zero, and 2 always answers 5.
    filters = tuple(array.copy() for array in NETWORK.filters)
    for place in range(3):
        for filter_, bias in ((1, -1e4), (4, -1e4), (2, 5.0)):
            biases[place * 6 + filter_] = bias
            filters[place][filter_] = 0
    network = replace(NETWORK, filters=filters, filter_bias=biases)
    counts = count(network, hash_all(texts, network.max_tokens), Alone())
    smaller = pruned(network, counts, filters=3)
    assert [array.shape[0] for array in smaller.filters] == [3, 3, 3]
    np.testing.assert_allclose(float_logits(smaller, texts), float_logits(network, texts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 4, 11])
def test_fewer_dimensions_give_the_nearest_products_there_are(dimensions: int) -> None:
    occurrences = np.arange(len(NETWORK.words))
    smaller = with_dimensions(NETWORK, dimensions, occurrences)
    assert smaller.words.shape[1] == dimensions
    assert not smaller.words[0].any()
    weights = np.sqrt(occurrences + 1.0)[:, None]
    before, after = (weights * products_of(network) for network in (NETWORK, smaller))
    best = np.sqrt((np.linalg.svd(before, compute_uv=False)[dimensions:] ** 2).sum())
    assert np.linalg.norm(before - after) == pytest.approx(best, rel=1e-4)


def products_of(network: Network) -> np.ndarray:
    columns = [filters.transpose(2, 1, 0).reshape(filters.shape[2], -1) for filters in network.filters]
    return network.words.astype(np.float64) @ np.concatenate(columns, axis=1)


def test_words_that_need_fewer_dimensions_lose_nothing() -> None:
    flat = NETWORK.words.copy()
    flat[:, 3:] = 0
    network = replace(NETWORK, words=flat)
    smaller = with_dimensions(network, 3, np.zeros(len(flat), np.int64))
    np.testing.assert_allclose(products_of(smaller), products_of(network), atol=1e-4)
    # No dimension is much larger than the others, so that one step fits them all.
    sizes = np.linalg.norm(smaller.words, axis=0)
    assert sizes.max() < 3 * sizes.min()


@settings(deadline=None, max_examples=30)
@given(
    words=st.floats(0, 1),
    bigrams=st.floats(0, 1),
    dimensions=st.integers(1, 12),
    filters=st.integers(1, 6),
    bits=st.builds(Bits, st.sampled_from([4, 8]), st.sampled_from([4, 8])),
)
def test_the_size_of_a_plan_is_known_to_the_byte(
    words: float, bigrams: float, dimensions: int, filters: int, bits: Bits
) -> None:
    plan = msgspec.structs.replace(
        whole_plan(NETWORK), words=words, bigrams=bigrams, dimensions=dimensions, filters=filters, bits=bits
    )
    quantized = quantize(apply_plan(NETWORK, plan, even_counts(NETWORK)), bits)
    stored = arrays_of(quantized)
    assert artifact_bytes(NETWORK, plan) == sum(array.nbytes for array in stored.values())
    assert table_bytes(NETWORK, plan) == len(quantized.words) * 9 * filters


def test_counts_are_those_of_the_texts_and_the_same_over_ranks() -> None:
    texts = ["good film", "good good bad , the", "", "unseen good", TEXT]
    found = count(NETWORK, hash_all(texts, NETWORK.max_tokens), Alone())
    place = int(np.flatnonzero(NETWORK.word_hashes == hash_all(["good"], 1).hashes[0])[0])
    assert found.words[FIRST_WORD_ROW + place] == 5
    assert found.words[1] == 1
    # Half of the pairs of TEXT are kept, which is cut to twelve words.
    assert found.bigrams.sum() == 6
    # A text's features are its logits under a head that passes them on.
    features = len(NETWORK.filter_bias)
    seen = replace(
        NETWORK,
        labels=tuple(map(str, range(features))),
        head=np.eye(features, dtype=np.float32),
        head_bias=np.zeros(features, np.float32),
        wide_words=np.zeros((len(NETWORK.words), features), np.float32),
        wide_bigrams=np.zeros((len(NETWORK.bigram_hashes), features), np.float32),
        wide_bias=np.zeros(features, np.float32),
        blend=1.0,
    )
    logits = float_logits(seen, texts)
    np.testing.assert_allclose(found.mean, logits.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.deviation, logits.std(axis=0), rtol=1e-3, atol=1e-4)

    def of_rank(exchange: Exchange) -> Counts:
        return count(NETWORK, hash_all(texts[exchange.rank :: exchange.world], NETWORK.max_tokens), exchange)

    for of_ranks in run_ranks(2, of_rank):
        assert np.array_equal(of_ranks.words, found.words)
        assert np.array_equal(of_ranks.bigrams, found.bigrams)
        np.testing.assert_allclose(of_ranks.mean, found.mean, rtol=1e-5)
        np.testing.assert_allclose(of_ranks.deviation, found.deviation, rtol=1e-4, atol=1e-5)


def test_the_size_of_a_float_network_is_that_of_all_its_arrays() -> None:
    network = random_network(1, labels=2, dimensions=4, filters=3, widths=(2,))
    words, bigrams = len(network.word_hashes), len(network.bigram_hashes)
    tables = (words + 2) * (4 + 2) + bigrams * 2 + 3 * 2 * 4
    rest = 3 + 2 * 3 + 2 + 2
    assert float_bytes(network) == 4 * (tables + rest) + 8 * (words + bigrams)
