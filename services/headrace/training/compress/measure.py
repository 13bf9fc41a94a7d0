"""How good, large and fast a network is as an artifact: what the search for the smallest one asks of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.network import Network, float_logits
from headrace.model.quantizing import Bits, quantize
from headrace.training.ranks.exchange import Exchange

_TIMED_TEXTS = 1024
_ROUNDS = 3


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
        backend.logits(encoded) * artifact.network.unit,
        targets,
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
    logits = float_logits(network, texts).astype(np.float64)
    return _score(logits, targets, exchange, size=float_bytes(network), latency_us=None)


def float_bytes(network: Network) -> int:
    """The bytes of all arrays of ``network``: its size without any compression."""
    arrays = [value for value in vars(network).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in (*arrays, *network.filters))


def _score(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    exchange: Exchange,
    *,
    size: int,
    latency_us: float | None,
) -> Score:
    labels = logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    losses = np.log(np.exp(shifted).sum(axis=1)) - own
    loss, rows = exchange.sum(np.array([losses.sum(), float(len(targets))]))
    cells = targets * labels + logits.argmax(axis=1)
    confusion = exchange.sum(np.bincount(cells, minlength=labels * labels)).reshape(labels, labels)
    return Score(macro_f1=_macro_f1(confusion), cross_entropy=float(loss / rows), size=size, latency_us=latency_us)


def _macro_f1(confusion: NDArray[np.int64]) -> float:
    """The mean of F1 over the classes that occur among labels (rows); answers are columns."""
    support = confusion.sum(axis=1)
    occurs = support > 0
    either = (support + confusion.sum(axis=0))[occurs]
    return float((2 * np.diagonal(confusion)[occurs] / either).mean())
