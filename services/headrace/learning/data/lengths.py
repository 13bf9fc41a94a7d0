"""How many words of a text are read: as many as the texts have, up to a bound, and how many texts are longer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.shards import Parts
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.hashing import hash_strings
from headrace.model.integers import MAX_TOKENS

MOST_BY_ITSELF = 2048
"""Words of a text that a training reads without being told to: an answer's time grows with its words."""

_STEP = 256
# Bounds the memory of counting: a text's hashes take eight bytes for each of its own.
_AT_ONCE = 256


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """``max_tokens`` words of a text are read; ``cut`` of the ``texts`` of all ranks have more, ``longest`` at most."""

    max_tokens: int
    longest: int
    cut: int
    texts: int


def follow_lengths(recipe: Recipe, parts: Parts, exchange: Exchange, *, follow: bool) -> tuple[Recipe, Lengths]:
    """The recipe whose ``max_tokens`` is that of the longest training or validation text of all ranks, if ``follow``.

    It is a multiple of 256, no less than the recipe's own and at most MOST_BY_ITSELF. A collective.
    """
    split = parts.split
    learnt, tested = (word_counts(texts) for texts in (split.train.texts + split.valid.texts, split.test.texts))
    if follow:
        longest = max(exchange.gather(int(learnt.max(initial=0)), int))
        wanted = min(-(-longest // _STEP) * _STEP, MOST_BY_ITSELF)
        recipe = msgspec.structs.replace(recipe, max_tokens=max(recipe.max_tokens, wanted))
    counts = np.concatenate([learnt, tested])
    own = Lengths(
        max_tokens=recipe.max_tokens,
        longest=int(counts.max(initial=0)),
        cut=int((counts > recipe.max_tokens).sum()),
        texts=len(counts),
    )
    told = exchange.gather(own, Lengths)
    return recipe, Lengths(
        max_tokens=recipe.max_tokens,
        longest=max(one.longest for one in told),
        cut=sum(one.cut for one in told),
        texts=sum(one.texts for one in told),
    )


def word_counts(texts: Sequence[str]) -> NDArray[np.int64]:
    """How many words each text has; from MAX_TOKENS + 1 on they are not counted."""
    starts = range(0, len(texts), _AT_ONCE)
    counts = [np.diff(hash_strings(texts[first : first + _AT_ONCE], MAX_TOKENS + 1)[1]) for first in starts]
    return np.concatenate([np.empty(0, np.int64), *counts])
