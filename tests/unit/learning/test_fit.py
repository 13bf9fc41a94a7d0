"""The PyTorch parts that are trained compute what the network's plain numpy definition says, gradients included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.data.vocabulary import choose_vocabulary, hash_all
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.fit.blend import UNUSED, BlendWeights, assemble_network, beyond_chance, fit_blend, fit_scale
from headrace.learning.fit.convolution import ConvolutionFit, TextCNN, convolution_logits, flatten, fresh_network
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, WideRecipe
from headrace.learning.fit.wide import WideWeights, class_counts, fit_wide, log_count_ratios, wide_features, wide_logits
from headrace.model.network import UNKNOWN_ROW, float_logits
from tests.support.exchange import run_ranks

WORDS = ("wine", "water", "very", "not", "good", "水", "!", "rare")
TEXT = st.lists(st.sampled_from([*WORDS, "unseen"]), max_size=9).map(" ".join)
LABELS = ("a", "b", "c")
MAX_TOKENS = 7


def small_cnn(kept: int) -> TextCNN:
    torch.manual_seed(3)
    network = TextCNN(kept, len(LABELS), dimensions=5, filters=4, widths=(2, 3, 4), dropout=0.5)
    with torch.no_grad():
        network.filter_bias.uniform_(-0.3, 0.3)
    return network.eval()


def parts(max_tokens: int = MAX_TOKENS):
    texts = hash_all([" ".join(WORDS), "good water ! good water !"], max_tokens=50)
    vocabulary = choose_vocabulary(texts, Alone(), max_words=6, max_bigrams=5, least_bigram_count=1)
    generator = torch.Generator().manual_seed(4)
    wide = WideWeights(
        torch.randn(vocabulary.columns, len(LABELS), generator=generator), torch.randn(len(LABELS), generator=generator)
    )
    return vocabulary, small_cnn(len(vocabulary.words)), wide


def rows_of(texts: list[str], vocabulary) -> list[np.ndarray]:
    return hash_all(texts, MAX_TOKENS).rows(vocabulary.words)


@settings(deadline=None, max_examples=50)
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_both_parts_in_torch_give_the_networks_own_logits(texts):
    vocabulary, convolution, wide = parts()
    weights = BlendWeights(0.3, 0.9)
    network = assemble_network(LABELS, MAX_TOKENS, vocabulary, convolution, wide, weights)

    hashed = hash_all(texts, MAX_TOKENS)
    features = wide_features(hashed.hashes, hashed.starts, vocabulary.words, vocabulary.bigrams)
    first = convolution_logits(convolution, hashed.rows(vocabulary.words))
    expected = weights.convolution * first + weights.wide * wide_logits(*wide, features)

    np.testing.assert_allclose(float_logits(network, texts), expected.numpy(), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(TEXT, st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5))
def test_neighbours_in_a_batch_do_not_change_a_texts_logits(text, before, after):
    vocabulary, convolution, _ = parts()
    alone = convolution_logits(convolution, rows_of([text], vocabulary))
    among = convolution_logits(convolution, rows_of([*before, text, *after], vocabulary))

    torch.testing.assert_close(among[len(before)], alone[0])


def test_the_convolutions_handmade_gradient_is_that_of_autograd():
    vocabulary, convolution, _ = parts()
    texts = rows_of(["very good wine", "water", "", "not good ! rare wine water very"], vocabulary)
    targets = torch.tensor([0, 1, 2, 0])
    torch.nn.functional.cross_entropy(convolution(flatten(texts, 4)), targets).backward()

    words = convolution.words.weight.detach().clone().requires_grad_()
    filters = [one.detach().clone().requires_grad_() for one in convolution.filters]
    logits = []
    for text in texts:
        pooled = []
        for width, one in zip(convolution.widths, filters, strict=True):
            padded = np.concatenate([text, np.zeros(max(0, width - len(text)), np.int64)])
            windows = words[torch.from_numpy(padded)].unfold(0, width, 1).transpose(1, 2)
            pooled.append(torch.einsum("nkd,fkd->nf", windows, one).amax(dim=0))
        logits.append(convolution.head(torch.relu(torch.cat(pooled) + convolution.filter_bias)))
    torch.nn.functional.cross_entropy(torch.stack(logits), targets).backward()

    # The padding row is no parameter: whatever reaches it is dropped.
    torch.testing.assert_close(convolution.words.weight.grad.to_dense()[1:], words.grad[1:])
    assert not convolution.words.weight.grad.to_dense()[0].any()
    for mine, theirs in zip(convolution.filters, filters, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_the_wide_parts_handmade_gradient_is_that_of_autograd():
    vocabulary, _, wide = parts()
    hashed = hash_all(["good water !", "", "unseen", "wine wine water"], MAX_TOKENS)
    features = wide_features(hashed.hashes, hashed.starts, vocabulary.words, vocabulary.bigrams)
    dense = torch.zeros(len(hashed), vocabulary.columns)
    for text, scale in enumerate(features.scales):
        for column in features.columns[features.starts[text] : features.starts[text + 1]]:
            dense[text, column] += float(scale)
    mine, theirs = (wide.weights.clone().requires_grad_() for _ in range(2))

    wide_logits(mine, wide.bias, features).square().sum().backward()
    (dense @ theirs + wide.bias).square().sum().backward()

    torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_bigram_never_spans_two_texts():
    texts = hash_all(["good water", "wine not"], MAX_TOKENS)
    pairs = choose_vocabulary(texts, Alone(), max_words=9, max_bigrams=9, least_bigram_count=1).bigrams
    across = hash_all(["water wine"], MAX_TOKENS)
    features = wide_features(across.hashes, across.starts, np.empty(0, np.uint64), pairs)

    assert len(pairs) == 2
    assert features.columns.tolist() == [UNKNOWN_ROW, UNKNOWN_ROW]


def test_words_are_kept_by_falling_count_and_equal_counts_by_hash():
    texts = hash_all(["b a a c", "a b d d d d"], MAX_TOKENS)
    kept = choose_vocabulary(texts, Alone(), max_words=4, max_bigrams=0, least_bigram_count=1).words
    d, a, b, c = (hash_all([word], 1).hashes[0] for word in "dabc")

    assert kept.tolist() == [d, a, b, c]
    assert choose_vocabulary(texts, Alone(), max_words=2, max_bigrams=0, least_bigram_count=1).words.tolist() == [d, a]


def test_log_count_ratios_are_those_of_the_paper_for_two_classes():
    texts = hash_all(["good good wine", "good", "bad wine"], MAX_TOKENS)
    vocabulary = choose_vocabulary(texts, Alone(), max_words=9, max_bigrams=0, least_bigram_count=1)
    features = wide_features(texts.hashes, texts.starts, vocabulary.words, vocabulary.bigrams)
    ratios = log_count_ratios(class_counts(features, np.array([0, 0, 1]), vocabulary.columns, 2, Alone()))

    place = 2 + vocabulary.words.tolist().index(hash_all(["good"], 1).hashes[0])
    # Presence counts, each feature smoothed by 0.3; five columns with padding and unknown.
    inside, outside = (2 + 0.3) / (3 + 5 * 0.3), (0 + 0.3) / (2 + 5 * 0.3)
    assert ratios[place].tolist() == pytest.approx([np.log(inside / outside), np.log(outside / inside)])


def test_the_wide_part_learns_and_stays_at_its_prior_when_pulled_hard():
    texts = hash_all(["good wine", "good water", "bad wine", "bad water"] * 5, MAX_TOKENS)
    targets = np.array([0, 0, 1, 1] * 5)
    vocabulary = choose_vocabulary(texts, Alone(), max_words=9, max_bigrams=9, least_bigram_count=1)
    features = wide_features(texts.hashes, texts.starts, vocabulary.words, vocabulary.bigrams)
    ratios = log_count_ratios(class_counts(features, targets, vocabulary.columns, 2, Alone()))

    free = fit_wide(features, targets, vocabulary.columns, 2, WideRecipe(pull=0.01), Alone())
    held = fit_wide(features, targets, vocabulary.columns, 2, WideRecipe(pull=1e6), Alone())

    assert (wide_logits(*free, features).argmax(dim=1).numpy() == targets).all()
    ratios[UNKNOWN_ROW] *= WideRecipe().unknown
    torch.testing.assert_close(held.weights, WideRecipe().prior * ratios, rtol=1e-2, atol=1e-3)


def test_an_unknown_word_speaks_for_the_class_of_which_fewer_words_were_seen():
    texts = hash_all(["good fine nice kind warm", "bad", "good fine", "bad"], MAX_TOKENS)
    vocabulary = choose_vocabulary(texts, Alone(), max_words=9, max_bigrams=9, least_bigram_count=1)
    features = wide_features(texts.hashes, texts.starts, vocabulary.words, vocabulary.bigrams)
    weights, bias = fit_wide(features, np.array([0, 1, 0, 1]), vocabulary.columns, 2, WideRecipe(), Alone())
    asked = hash_all(["unseen", "also never seen"], MAX_TOKENS)
    unknown = wide_features(asked.hashes, asked.starts, vocabulary.words, vocabulary.bigrams)
    logits = wide_logits(weights, bias, unknown) - bias

    assert (logits.argmax(dim=1).numpy() == 1).all()
    torch.testing.assert_close(logits[1], 3**0.5 * logits[0])


def test_shares_favour_the_part_that_knows_more():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 3, (400,), generator=generator)
    truth = torch.nn.functional.one_hot(targets, 3).float()
    knows = 2 * truth + torch.randn(400, 3, generator=generator)
    guesses = 5 * torch.randn(400, 3, generator=generator)

    weights = fit_blend(knows, guesses, targets)

    assert weights.convolution > 0.5
    assert weights.wide < 0.05


def test_an_overconfident_part_is_scaled_down_and_not_thrown_away():
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 3, (2000,), generator=generator)
    truth = torch.nn.functional.one_hot(targets, 3).float()
    first, second = (truth + torch.randn(2000, 3, generator=generator) for _ in range(2))

    plain, loud = fit_blend(first, second, targets), fit_blend(20 * first, second, targets)

    assert loud.convolution * 20 == pytest.approx(plain.convolution, rel=0.1)
    assert loud.wide == pytest.approx(plain.wide, rel=0.1)


def test_a_convolution_that_helps_few_rows_by_chance_is_left_out():
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(0, 2, (60,), generator=generator)
    knows = torch.nn.functional.one_hot(targets, 2).float() + torch.randn(60, 2, generator=generator)
    left_out = 0
    for _ in range(20):
        weights = fit_blend(torch.randn(60, 2, generator=generator), knows, targets)
        left_out += weights.convolution == UNUSED
        assert weights.wide > 0.1
    # The weights are fitted to these rows themselves, so noise wins a little more often than one time in six.
    assert left_out >= 12


def test_a_gain_is_beyond_chance_above_its_own_standard_error():
    def gains(better: int) -> np.ndarray:
        return np.where(np.arange(100) < better, 1.0, -1.0)

    assert not beyond_chance(np.zeros(100))
    assert [beyond_chance(gains(better)) for better in (40, 53, 60)] == [False, False, True]


def test_an_epoch_of_few_rows_has_more_and_smaller_steps():
    def steps(rows: int, exchange: Exchange) -> int:
        recipe = ConvolutionRecipe(dimensions=4, filters=2, batch=64, least_steps=8)
        fit = ConvolutionFit(
            fresh_network(3, 2, recipe, seed=0),
            [np.array([2, 3, 4])] * rows,
            np.zeros(rows, np.int64),
            recipe=recipe,
            seed=0,
            exchange=exchange,
        )
        fit.epoch()
        return fit.state()["schedules"][0]["last_epoch"]

    assert [steps(rows, Alone()) for rows in (10, 80, 640)] == [3, 8, 10]
    assert run_ranks(2, lambda exchange: steps(40, exchange)) == [8, 8]


def test_a_part_alone_is_scaled_as_the_blend_scales_it():
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 3, (500,), generator=generator)
    logits = 5 * (torch.nn.functional.one_hot(targets, 3).float() + torch.randn(500, 3, generator=generator))
    assert fit_scale(logits, targets) == pytest.approx(fit_blend(torch.zeros_like(logits), logits, targets).wide)
    assert fit_scale(4 * logits, targets) == pytest.approx(fit_scale(logits, targets) / 4, rel=0.05)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(TEXT, max_size=4), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_ranks_agree_on_the_vocabulary_and_the_wide_part_of_all_their_texts(shards, randomness):
    shards = [*shards, ["good wine", "bad water"]]
    texts = [text for shard in shards for text in shard]
    targets = {text: randomness.randrange(len(LABELS)) for text in texts}

    def fit(exchange: Exchange, own: list[str]):
        hashed = hash_all(own, MAX_TOKENS)
        kept = choose_vocabulary(hashed, exchange, max_words=6, max_bigrams=5, least_bigram_count=1)
        features = wide_features(hashed.hashes, hashed.starts, kept.words, kept.bigrams)
        wanted = np.array([targets[text] for text in own], np.int64)
        return kept, fit_wide(features, wanted, kept.columns, len(LABELS), WideRecipe(iterations=5), exchange)

    alone, weights = fit(Alone(), texts)
    ranks = run_ranks(len(shards), lambda exchange: fit(exchange, shards[exchange.rank]))

    for kept, found in ranks:
        assert kept.words.tolist() == alone.words.tolist()
        assert kept.bigrams.tolist() == alone.bigrams.tolist()
        assert torch.equal(found.weights, ranks[0][1].weights)
        torch.testing.assert_close(found.weights, weights.weights, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("whole", [True, False])
def test_logits_in_pieces_and_ranks_give_the_fit_of_all_texts_at_once(monkeypatch, whole):
    if not whole:
        monkeypatch.setattr("headrace.learning.fit.wide.FITTED_WHOLE", 1)
    texts = ["good wine", "good water", "bad wine", "bad water", "not good"] * 4
    targets = np.array([0, 0, 1, 1, 2] * 4)

    def fit(exchange: Exchange):
        own = slice(exchange.rank, None, exchange.world)
        hashed = hash_all(texts[own], MAX_TOKENS)
        kept = choose_vocabulary(hashed, exchange, max_words=9, max_bigrams=9, least_bigram_count=1)
        features = wide_features(hashed.hashes, hashed.starts, kept.words, kept.bigrams)
        return fit_wide(features, targets[own], kept.columns, 3, WideRecipe(), exchange)

    alone = fit(Alone())
    ranks = run_ranks(2, fit)
    monkeypatch.setattr("headrace.learning.fit.wide.LOGITS_AT_ONCE", 7)
    pieces = fit(Alone())

    assert torch.equal(ranks[0].weights, ranks[1].weights)
    for found in (pieces, *ranks):
        torch.testing.assert_close(found.weights, alone.weights, rtol=1e-2, atol=1e-3)
