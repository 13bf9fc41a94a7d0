"""How to train: the settings of one training, with the default that all data sets share."""

from __future__ import annotations

import msgspec


class WideRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The wide part. ``prior``: every weight starts at, and is pulled towards, this multiple of its log-count ratio;
    ``pull``: how strongly (an L2 penalty in units of one text); ``iterations`` of L-BFGS at most. The ratio of a word
    that is not kept counts ``unknown`` times as much as others.
    """

    prior: float = 0.3
    pull: float = 0.3
    unknown: float = 2.0
    iterations: int = 60


class ConvolutionRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The convolution. ``dimensions`` of a word, ``filters`` of each of the ``widths``; one-cycle AdamW over ``epochs``
    with ``rate`` and, for the words, ``word_rate`` at the top of the cycle, reached after the share ``warm_up`` of it.
    ``dropout`` of the pooled features, ``word_dropout`` of the words; words start with the deviation ``word_scale``.
    With pretrained ``vectors``, by name (:mod:`headrace.learning.data.vocabulary`), these times ``vector_scale`` are
    added to the words' beginning.
    Words share the sequences of ``least_part`` to ``most_part`` characters that two of them have.
    Each rank trains on ``batch`` texts a step, on fewer where an epoch would have less than ``least_steps``; ranks take
    the mean of their weights every ``steps_apart`` steps.
    """

    dimensions: int = 128
    filters: int = 96
    widths: tuple[int, ...] = (2, 3, 4)
    epochs: int = 12
    batch: int = 64
    rate: float = 2e-3
    word_rate: float = 6e-3
    warm_up: float = 0.25
    weight_decay: float = 1e-2
    dropout: float = 0.5
    word_dropout: float = 0.1
    word_scale: float = 0.1
    least_part: int = 3
    most_part: int = 5
    vectors: str | None = None
    vector_scale: float = 0.3
    least_steps: int = 32
    steps_apart: int = 8


class TeachingRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """How rows that a teacher labelled are learnt from. ``temperature`` of their soft targets, 1 as the teacher gives
    them. ``weights``: what such a row may count beside a human row; validation chooses, and 0 leaves all of them out.
    Where a teacher shows how it sees texts, it chooses among ``spreads`` too, the share of a text's neighbours in its
    label. What machine rows are worth takes ``least_valid`` validation rows to choose; with fewer the human rows are
    divided into folds. Words begin as the teacher sees them, if it shows them, with the deviation ``word_scale``.
    """

    temperature: float = 1.0
    weights: tuple[float, ...] = (0.0, 0.3, 1.0)
    spreads: tuple[float, ...] = (0.0, 0.5)
    least_valid: int = 400
    word_scale: float = 0.1


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A whole training. A text is cut to ``max_tokens`` words; ``max_words`` and ``max_bigrams`` are kept at most, and
    bigrams that occur ``least_bigram_count`` times. The search stops when validation has not become better for
    ``patience`` epochs. Results repeat for equal ``seed`` and ``threads``.
    Fewer than ``least_valid`` validation rows are too few to choose the epoch and the weights of the two parts by: then
    the human rows are divided into ``folds``, and each is validated on by a network that has not learnt it. Five,
    because a fit of half of the rows knows so much less than in the end that the weights come out wrong
    (docs/benchmarks.md).
    """

    max_tokens: int = 256
    max_words: int = 30_000
    max_bigrams: int = 60_000
    least_bigram_count: int = 2
    patience: int = 4
    least_valid: int = 200
    folds: int = 5
    wide: WideRecipe = WideRecipe()
    convolution: ConvolutionRecipe = ConvolutionRecipe()
    seed: int = 0
    threads: int = 1
    teaching: TeachingRecipe | msgspec.UnsetType = msgspec.UNSET
    """Left out where there are no machine rows, and so in the lineage of a version without them."""


def teaching_of(recipe: Recipe) -> TeachingRecipe:
    """How ``recipe`` learns from machine rows; as all data sets do where it does not say."""
    return recipe.teaching if isinstance(recipe.teaching, TeachingRecipe) else TeachingRecipe()


def adapted(
    *,
    seed: int,
    epochs: int | None = None,
    vectors: str | None = None,
    threads: int | None = None,
    max_tokens: int | None = None,
) -> Recipe:
    """The recipe that all data sets share, with what somebody wants otherwise; None is as the recipe has it."""
    recipe = Recipe()
    return msgspec.structs.replace(
        recipe,
        seed=seed,
        max_tokens=max_tokens or recipe.max_tokens,
        threads=threads or recipe.threads,
        convolution=msgspec.structs.replace(
            recipe.convolution,
            epochs=epochs or recipe.convolution.epochs,
            vectors=vectors or recipe.convolution.vectors,
        ),
    )
