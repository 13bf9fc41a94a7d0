"""An artifact of real size without data: random weights over made texts. It answers nonsense, as fast as any other.

python -m load.made FILE
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from pathlib import Path

import numpy as np

from headrace.model.artifact import About, assemble, save
from headrace.model.network import FIRST_WORD_ROW, Network, pair_hashes
from headrace.model.quantizing import Bits, quantize
from headrace.model.words import hash_strings
from headrace_load.workload.spec import MadeTexts
from headrace_load.workload.texts import load_texts

DIMENSIONS, FILTERS, WIDTHS, MAX_TOKENS = 128, 96, (2, 3, 4), 256
BIGRAMS = 60_000


def made_artifact(texts: list[str], path: Path, *, words: int = 30_000, classes: int = 4) -> None:
    """Save a network of random weights that keeps so many words of ``texts`` and their bigrams, frequent ones first."""
    rng = np.random.default_rng(0)
    counts = Counter(itertools.chain.from_iterable(text.split() for text in texts))
    seen, _ = hash_strings([word for word, _ in counts.most_common(words)], 1)
    kept = np.concatenate([seen, rng.integers(1, 2**63, words - len(seen)).astype(np.uint64)])
    hashes, starts = hash_strings(texts, MAX_TOKENS)
    pairs = Counter(
        itertools.chain.from_iterable(
            pair_hashes(hashes[first:end]).tolist() for first, end in itertools.pairwise(starts.tolist())
        )
    )
    bigrams = np.array([pair for pair, _ in pairs.most_common(BIGRAMS)], np.uint64)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape, scale=0.1).astype(np.float32)

    rows, features = len(kept) + FIRST_WORD_ROW, FILTERS * len(WIDTHS)
    embeddings = normal(rows, DIMENSIONS)
    embeddings[0] = 0
    network = Network(
        labels=tuple(f"label {number}" for number in range(classes)),
        max_tokens=MAX_TOKENS,
        widths=WIDTHS,
        word_hashes=kept,
        words=embeddings,
        filters=tuple(normal(FILTERS, width, DIMENSIONS) for width in WIDTHS),
        filter_bias=normal(features),
        head=normal(classes, features),
        head_bias=normal(classes),
        wide_words=normal(rows, classes),
        bigram_hashes=bigrams,
        wide_bigrams=normal(len(bigrams), classes),
        wide_bias=normal(classes),
        blend=0.5,
    )
    save(assemble(quantize(network, Bits()), About()), str(path))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m load.made", description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    file.parent.mkdir(parents=True, exist_ok=True)
    made_artifact(load_texts(MadeTexts(), 0), file)
