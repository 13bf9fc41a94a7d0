"""Find, on rows that no fit has seen, how long the convolution should train and how much each part should count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.textcnn import TextCNN
from headrace.training.blend import Shares, fit_shares
from headrace.training.fit_convolution import convolution_logits


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training rows: ``number`` from 1, the convolution's mean training loss, and on the validation
    rows the accuracy and cross entropy (nats) of both parts joined by ``shares``.
    """

    number: int
    loss: float
    accuracy: float
    cross_entropy: float
    shares: Shares


def search_epochs(
    epochs: Iterator[tuple[TextCNN, float]],
    texts: Sequence[NDArray[np.int64]],
    wide: torch.Tensor,
    targets: NDArray[np.int64],
    *,
    patience: int,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Epoch, ...]:
    """Follow a training until the blend has not become better for ``patience`` epochs, and return the epochs seen.

    ``texts`` are the validation rows as word rows, ``wide`` float32[texts, C] the logits of the fitted wide part for
    them, ``targets`` int64[texts]. Better is a lower cross entropy: unlike accuracy it notices when the convolution
    grows too sure of itself to be of use to the blend.
    """
    wanted = torch.from_numpy(targets)
    seen: list[Epoch] = []
    for number, (network, loss) in enumerate(epochs, 1):
        convolution = convolution_logits(network, texts)
        shares = fit_shares(convolution, wide, wanted)
        blended = shares.convolution * convolution + shares.wide * wide
        seen.append(
            Epoch(
                number=number,
                loss=loss,
                accuracy=float((blended.argmax(dim=1) == wanted).double().mean()),
                cross_entropy=float(torch.nn.functional.cross_entropy(blended, wanted)),
                shares=shares,
            )
        )
        on_epoch(seen[-1])
        if number - best_epoch(seen).number >= patience:
            break
    return tuple(seen)


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest cross entropy, the first of equals."""
    return min(epochs, key=lambda epoch: epoch.cross_entropy)
