"""How much of a network is kept, and how much accuracy that may cost."""

from __future__ import annotations

from typing import Annotated

import msgspec

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
