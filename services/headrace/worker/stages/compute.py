"""The work of one batch between taking and publishing: decode, infer, encode. No I/O, so it runs on any thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.drift import TENTHS
from headrace.worker.stages.batch import Batch
from headrace.worker.stages.decode import DecodeValue, decode
from headrace.worker.stages.encode import Encoded, Style, encode
from headrace.worker.stages.infer import Inferred, infer
from headrace.worker.stages.json_kernel import MICROS
from headrace.worker.versions.serving import Served


class Computed(msgspec.Struct, frozen=True, eq=False):
    """A batch's answers, how many texts reached the model, and the seconds that each stage took.

    ``labels`` and ``tenths`` count the texts that the model answered, by label's index and by tenth of the score, for
    a version whose drift is measured.
    """

    encoded: list[Encoded]
    texts: int
    labels: dict[int, int]
    tenths: dict[int, int]
    decode_s: float
    infer_s: float
    encode_s: float
    cut: int = 0
    """Texts of which only the beginning was read."""


def compute(
    batch: Batch,
    served: Served,
    *,
    decode_value: DecodeValue,
    style: Style,
    ranking: int,
    monotonic: Callable[[], float],
) -> Computed:
    """Answer a batch by one version. Raises ModelBrokenError when the model fails on its canaries too."""
    model = served.model
    begun = monotonic()
    decoded = decode(batch.slices, batch.ready_ms, decode_value)
    decoded_at = monotonic()
    inferred = infer(model, decoded.texts, served.breaker, ranking=ranking)
    inferred_at = monotonic()
    encoded = encode(batch.slices, decoded, inferred, model=model, style=style)
    labels, scores = _counts(inferred) if served.drift is not None else ({}, {})
    return Computed(
        encoded,
        len(decoded.texts),
        labels,
        scores,
        decoded_at - begun,
        inferred_at - decoded_at,
        monotonic() - inferred_at,
        model.cut(decoded.texts),
    )


def _counts(inferred: Inferred) -> tuple[dict[int, int], dict[int, int]]:
    """The answered texts by label's index and by tenth of their score; 1.0 is in the last."""
    answered = inferred.labels >= 0
    tenths = np.minimum(inferred.micros[answered] * TENTHS // MICROS, TENTHS - 1)
    return _counted(inferred.labels[answered]), _counted(tenths)


def _counted(values: NDArray[np.integer[Any]]) -> dict[int, int]:
    return {value: count for value, count in enumerate(np.bincount(values).tolist()) if count}
