"""Random networks over words that the tests' texts hold, small and large, with the shapes that matter."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import About, Artifact, assemble
from headrace.model.network import FIRST_WORD_ROW, Network, pair_hashes
from headrace.model.quantizing import Bits, quantize
from headrace.model.words import hash_strings

VOCABULARY = ("the", "good", "bad", "film", "not", "don't", ",", "!", "你", "好", "テ", "스", "mañana", "😀", "7", "_x")
TEXT = " ".join(VOCABULARY)


def random_network(
    seed: int,
    *,
    labels: int = 3,
    dimensions: int = 8,
    filters: int = 5,
    widths: Sequence[int] = (2, 3, 4),
    max_tokens: int = 12,
    extra_words: int = 0,
    extra_bigrams: int = 0,
    blend: float = 0.6,
    scale: float = 1.0,
) -> Network:
    """A network that keeps VOCABULARY, half of TEXT's bigrams, and as many made-up words and bigrams as asked."""
    rng = np.random.default_rng(seed)
    hashes, _ = hash_strings([TEXT], len(VOCABULARY))
    words = np.concatenate([hashes, rng.integers(1, 2**63, extra_words).astype(np.uint64)])
    bigrams = np.concatenate([pair_hashes(hashes)[::2], rng.integers(1, 2**63, extra_bigrams).astype(np.uint64)])

    def normal(*shape: int) -> NDArray[np.float32]:
        # Heavier tails than a trained network's: the largest values set the scales.
        return (rng.standard_t(5, size=shape) * scale).astype(np.float32)

    embeddings = normal(len(words) + FIRST_WORD_ROW, dimensions)
    embeddings[0] = 0
    total = filters * len(widths)
    return Network(
        labels=tuple(f"label {place}" for place in range(labels)),
        max_tokens=max_tokens,
        widths=tuple(widths),
        word_hashes=words,
        words=embeddings,
        filters=tuple(normal(filters, width, dimensions) for width in widths),
        filter_bias=normal(total),
        head=normal(labels, total),
        head_bias=normal(labels),
        wide_words=normal(len(words) + FIRST_WORD_ROW, labels),
        bigram_hashes=bigrams,
        wide_bigrams=normal(len(bigrams), labels),
        wide_bias=normal(labels),
        blend=blend,
    )


def random_artifact(seed: int, bits: Bits | None = None, **shape: object) -> Artifact:
    return assemble(quantize(random_network(seed, **shape), bits or Bits()), About())  # type: ignore[arg-type]
