"""What a network costs as an artifact: its size under a plan, and its accuracy and speed once it is quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.network import FIRST_WORD_ROW, Network, float_logits
from headrace.model.quantizing import Bits, quantize


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


_TIMED_TEXTS = 1024
_ROUNDS = 3
_TEXTS_AT_ONCE = 256

T = TypeVar("T")


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """On the validation rows of all ranks: ``macro_f1`` in [0, 1] and mean ``cross_entropy`` in nats.

    ``size`` in bytes; ``latency_us``: microseconds a text on one thread of the cpu backend, as rank 0 saw it, None
    where nothing was timed.
    """

    macro_f1: float
    cross_entropy: float
    size: int
    latency_us: float | None = None


def score_quantized(
    network: Network,
    bits: Bits,
    texts: Sequence[str],
    targets: NDArray[np.int64],
    exchange: Exchange,
    clock: Callable[[], float],
) -> Score:
    """Quantize ``network`` to ``bits`` and answer this rank's ``texts``; ``targets`` int64[texts] are their labels'
    indexes. ``clock`` gives seconds.
    """
    artifact = assemble(quantize(network, bits), About())
    backend = open_backend("cpu", artifact)
    backend.warm()
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return _score(
        (backend.logits(piece) * artifact.network.unit for piece in _pieces(encoded)),
        targets,
        len(network.labels),
        exchange,
        size=artifact.size,
        latency_us=exchange.gather(_latency_us(backend, encoded[:_TIMED_TEXTS], clock), float)[0],
    )


def _latency_us(backend: Backend, texts: Sequence[bytes], clock: Callable[[], float]) -> float:
    """Of the best of some rounds, which other processes disturb least."""
    rounds = []
    for _ in range(_ROUNDS):
        begun = clock()
        backend.logits(texts)
        rounds.append(clock() - begun)
    return 1e6 * min(rounds) / max(len(texts), 1)


def score_float(network: Network, texts: Sequence[str], targets: NDArray[np.int64], exchange: Exchange) -> Score:
    """The network as it was trained."""
    logits = (float_logits(network, piece).astype(np.float64) for piece in _pieces(texts))
    return _score(logits, targets, len(network.labels), exchange, size=float_bytes(network), latency_us=None)


def float_bytes(network: Network) -> int:
    """The bytes of all arrays of ``network``: its size without any compression."""
    arrays = [value for value in vars(network).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in (*arrays, *network.filters))


def _pieces(texts: Sequence[T]) -> Iterable[Sequence[T]]:
    return (texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE))


def _score(
    logits: Iterable[NDArray[np.floating[Any]]],
    targets: NDArray[np.int64],
    labels: int,
    exchange: Exchange,
    *,
    size: int,
    latency_us: float | None,
) -> Score:
    """``logits`` float64[texts, C] come in pieces, which together are of all texts that ``targets`` are of."""
    losses, answers, first = np.empty(len(targets)), np.empty(len(targets), np.int64), 0
    for piece in logits:
        texts = slice(first, first + len(piece))
        shifted = piece - piece.max(axis=1, keepdims=True)
        own = np.take_along_axis(shifted, targets[texts, None], axis=1)[:, 0]
        losses[texts] = np.log(np.exp(shifted).sum(axis=1)) - own
        answers[texts] = piece.argmax(axis=1)
        first += len(piece)
    loss, rows = exchange.sum(np.array([losses.sum(), float(len(targets))]))
    right = targets[answers == targets]
    counts = exchange.sum(np.stack([np.bincount(of, minlength=labels) for of in (targets, answers, right)]))
    return Score(macro_f1=_macro_f1(*counts), cross_entropy=float(loss / rows), size=size, latency_us=latency_us)


def _macro_f1(support: NDArray[np.int64], answered: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """The mean of F1 over the classes that occur among labels, from each class's counts."""
    occurs = support > 0
    return float((2 * right[occurs] / (support + answered)[occurs]).mean())
