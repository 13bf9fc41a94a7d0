"""What a plan costs, known without carrying it out."""

from __future__ import annotations

from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.training.compress.plan import Plan


def artifact_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the arrays that :mod:`headrace.model.artifact_arrays` stores of what ``plan`` keeps."""
    labels, widths = len(network.labels), network.widths
    words, bigrams, features = _rows(network, plan), round(plan.bigrams * len(network.bigram_hashes)), 0
    features = plan.filters * len(widths)

    def row(values: int) -> int:
        return -(-values * plan.bits // 8)

    # Beside the values of a row its step, and of a word or bigram its key; a filter has two scales and a bias.
    of_words = words * (row(plan.dimensions) + row(labels) + 6)
    of_bigrams = bigrams * (row(labels) + 5)
    of_filters = plan.filters * sum(widths) * row(plan.dimensions) + 12 * features
    return of_words + of_bigrams + of_filters + labels * (row(features) + 9)


def table_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the folded tables, of which each word of a text reads a row: what answering costs goes with it."""
    return _rows(network, plan) * sum(network.widths) * plan.filters


def _rows(network: Network, plan: Plan) -> int:
    return round(plan.words * len(network.word_hashes)) + FIRST_WORD_ROW
