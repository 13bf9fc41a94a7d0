"""Made-up messages to a bank's help desk, for pictures of the console and for a small version that answers them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np

from headrace.model.artifact import About, Artifact, assemble
from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.model.quantizing import quantize
from headrace.model.words import hash_strings, split_words

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "card": (
        ("My card was", "The new card is", "A card of mine got", "The card I ordered is", "Both cards are"),
        (
            "swallowed by the machine",
            "still not in the post",
            "blocked since Monday",
            "lost on the train",
            "damaged at the chip",
        ),
    ),
    "refund": (
        (
            "I want a refund for",
            "Where is the refund for",
            "Please send back the money for",
            "The shop promised a refund for",
        ),
        (
            "the cancelled flight",
            "a parcel that never came",
            "shoes that I returned",
            "a double booking",
            "the wrong order",
        ),
    ),
    "transfer": (
        ("My transfer to", "The payment to", "A standing order to", "The money I sent to"),
        (
            "my landlord has not arrived",
            "a friend abroad takes days",
            "the wrong account must be stopped",
            "my savings was rejected",
        ),
    ),
    "login": (
        (
            "I can't log in because",
            "The app asks again and again because",
            "I am locked out since",
            "The code does not come, so",
        ),
        (
            "my phone is new",
            "the password expired",
            "the code never arrives",
            "I changed my number",
            "it says unknown device",
        ),
    ),
    "fees": (
        ("Why was I charged", "I don't understand the fee of", "Please explain the charge of", "Nobody told me about"),
        ("three euros for cash abroad", "ten euros a month", "two per cent for the exchange", "a late payment"),
    ),
}
MIXED = (
    "The card was charged twice and I want the money back",
    "A fee for a transfer that was rejected, please refund it",
    "I can't see my new card in the app",
    "The refund went to a card that is blocked",
    "Why does a transfer abroad cost so much and take so long",
    "Hello, is anybody there?",
    "Since the new phone no payment goes through",
    "I was charged for a card that I never got",
)
ENDS = ("", ".", "!", ", please help.", ". Thanks", " - second time I ask.")


def desk_texts(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """``count`` texts with their labels, the same for one seed."""
    chance = random.Random(seed)
    for _ in range(count):
        label = chance.choice(sorted(PARTS))
        begin, end = PARTS[label]
        yield f"{chance.choice(begin)} {chance.choice(end)}{chance.choice(ENDS)}", label


def desk_artifact(count: int, **about: object) -> Artifact:
    """A version that knows ``count`` texts: its words weigh by their log-odds, as in naive Bayes, without training."""
    rows = list(desk_texts(count, 1))
    labels = tuple(sorted(PARTS))
    seen: dict[str, Counter[str]] = {}
    for text, label in rows:
        for word in set(split_words(text, 64)):
            seen.setdefault(word, Counter())[label] += 1
    words = sorted(seen)

    def odds_of(counts: Counter[str], label: str) -> float:
        return math.log((counts[label] + 0.4) / (counts.total() - counts[label] + 0.4) * (len(labels) - 1))

    odds = np.array(
        [
            [
                math.log((seen[word][label] + 0.4) / (seen[word].total() - seen[word][label] + 0.4) * 4)
                for label in labels
            ]
            for word in words
        ],
        np.float32,
    )
    hashes = np.array([hash_strings([word], 4)[0][0] for word in words], np.uint64)
    rng = np.random.default_rng(1)
    dimensions, filters, widths = 4, 4, (2, 3)

    def small(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 0.1).astype(np.float32)

    embeddings = small(len(words) + FIRST_WORD_ROW, dimensions)
    embeddings[0] = 0
    network = Network(
        labels=labels,
        max_tokens=64,
        widths=widths,
        word_hashes=hashes,
        words=embeddings,
        filters=tuple(small(filters, width, dimensions) for width in widths),
        filter_bias=small(filters * len(widths)),
        head=small(len(labels), filters * len(widths)),
        head_bias=np.zeros(len(labels), np.float32),
        wide_words=np.concatenate([np.zeros((FIRST_WORD_ROW, len(labels)), np.float32), 3 * odds]),
        bigram_hashes=np.zeros(0, np.uint64),
        wide_bigrams=np.zeros((0, len(labels)), np.float32),
        wide_bias=np.zeros(len(labels), np.float32),
        blend=0.1,
    )
    return assemble(quantize(network), About(**about))
