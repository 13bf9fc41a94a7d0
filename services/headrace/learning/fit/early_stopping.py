"""Find, on rows that no fit has seen, how long the convolution should train and how much each part should count."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.blend import Shares, fit_shares
from headrace.learning.fit.convolution import convolution_logits
from headrace.model.textcnn import TextCNN


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training rows: ``number`` from 1, the convolution's mean training loss, and on the validation
    rows the accuracy and cross entropy (nats) of both parts joined by ``shares``.
    """

    number: int
    loss: float
    accuracy: float
    cross_entropy: float
    shares: Shares


class _Answers(msgspec.Struct, frozen=True):
    """Of a rank's validation rows: the logits of both parts, float32[texts, C], and the targets, int64[texts]."""

    convolution: NDArray[np.float32]
    wide: NDArray[np.float32]
    targets: NDArray[np.int64]


class Validation(msgspec.Struct, frozen=True):
    """The rank's validation rows: ``texts`` as word rows, ``wide`` float32[texts, C] the logits of the fitted wide
    part for them, ``targets`` int64[texts].
    """

    texts: Sequence[NDArray[np.int64]]
    wide: torch.Tensor
    targets: torch.Tensor


def judge(network: TextCNN, rows: Validation, exchange: Exchange, *, number: int, loss: float) -> Epoch:
    """What the validation rows of all ranks say of ``network``, the same on every rank."""
    own = _Answers(convolution_logits(network, rows.texts).numpy(), rows.wide.numpy(), rows.targets.numpy())
    told = exchange.gather(own, _Answers)
    convolution, wide, wanted = (
        torch.from_numpy(np.concatenate(parts)) for parts in zip(*map(msgspec.structs.astuple, told), strict=True)
    )
    shares = fit_shares(convolution, wide, wanted)
    blended = shares.convolution * convolution + shares.wide * wide
    epoch = Epoch(
        number=number,
        loss=loss,
        accuracy=float((blended.argmax(dim=1) == wanted).double().mean()),
        cross_entropy=float(torch.nn.functional.cross_entropy(blended, wanted)),
        shares=shares,
    )
    # Rank 0 decides: sums on another kind of machine may end in other bits.
    return exchange.gather(epoch, Epoch)[0]


def goes_on(epochs: Sequence[Epoch], patience: int) -> bool:
    """Whether the blend may still become better: it has within the last ``patience`` epochs.

    Better is a lower cross entropy: unlike accuracy it notices when the convolution grows too sure of itself to be of
    use to the blend.
    """
    return not epochs or epochs[-1].number - best_epoch(epochs).number < patience


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest cross entropy, the first of equals."""
    return min(epochs, key=lambda epoch: epoch.cross_entropy)
