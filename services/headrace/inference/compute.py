"""The work of one batch between taking and publishing: decode, infer, encode. No I/O, so it runs on any thread."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.core.breaker import Breaker
from headrace.inference.batch import Batch
from headrace.inference.decode import DecodeValue, decode
from headrace.inference.encode import Encoded, Style, encode
from headrace.inference.infer import Model, infer


class Computed(msgspec.Struct, frozen=True, eq=False):
    """A batch's answers, how many texts reached the model, and the seconds that each stage took."""

    encoded: list[Encoded]
    texts: int
    decode_s: float
    infer_s: float
    encode_s: float


def compute(
    batch: Batch,
    model: Model,
    *,
    decode_value: DecodeValue,
    style: Style,
    breaker: Breaker,
    ranking: int,
    monotonic: Callable[[], float],
) -> Computed:
    """Answer a batch. Raises ModelBrokenError when the model fails on its canaries too."""
    begun = monotonic()
    decoded = decode(batch.slices, batch.ready_ms, decode_value)
    decoded_at = monotonic()
    inferred = infer(model, decoded.texts, breaker, ranking=ranking)
    inferred_at = monotonic()
    encoded = encode(batch.slices, decoded, inferred, version=model.version, labels=model.labels, style=style)
    return Computed(
        encoded, len(decoded.texts), decoded_at - begun, inferred_at - decoded_at, monotonic() - inferred_at
    )
