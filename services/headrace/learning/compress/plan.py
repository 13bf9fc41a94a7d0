"""How much of a network is kept, and how much accuracy that may cost.

What a plan costs, known without carrying it out.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.model.quantizing import Bits


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """``points``: how far validation macro-F1 may fall below that of the fp32 network, in points of a hundred.

    ``coarse``: fewer sizes are tried, further apart, and the convolution is not trained on, so the search ends sooner
    with a network that may be larger.
    """

    points: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    coarse: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: ``dimensions`` of a word, ``filters`` a width, shares in [0, 1] of words and bigrams, and the
    ``bits`` of a stored value.
    """

    dimensions: int
    filters: int
    words: float
    bigrams: float
    bits: Bits


_KEY = 4


def artifact_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the arrays that :mod:`headrace.model.artifact_format` stores of what ``plan`` keeps."""
    labels, rows = len(network.labels), _rows(network, plan)
    features, bigrams = plan.filters * len(network.widths), round(plan.bigrams * len(network.bigram_hashes))
    word, head = _row(plan.dimensions, plan.bits.convolution), _row(features, plan.bits.convolution)
    wide = _row(labels, plan.bits.wide)
    # Each row has a step, each word (padding and unknown are none) and bigram a key, each label a bias.
    of_words = rows * (word + wide + 2) + _KEY * (rows - FIRST_WORD_ROW)
    of_bigrams = bigrams * (wide + 1 + _KEY)
    # Each filter has two scales and a bias.
    of_filters = plan.filters * sum(network.widths) * word + features * 3 * 4
    return of_words + of_bigrams + of_filters + labels * (head + 1 + 8)


def table_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the folded tables, of which each word of a text reads a row: what answering costs goes with it."""
    return _rows(network, plan) * sum(network.widths) * plan.filters


def _row(values: int, bits: int) -> int:
    return -(-values * bits // 8)


def _rows(network: Network, plan: Plan) -> int:
    return round(plan.words * len(network.word_hashes)) + FIRST_WORD_ROW
