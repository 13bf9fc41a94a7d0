"""What one run left behind, before it is judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.measure.joined import Answers
from headrace_load.measure.stages import Scraped
from headrace_load.measure.timeline import Sample
from headrace_load.result import Used


class Gathered(Struct, frozen=True, kw_only=True):
    """Rows of columns.SENT and columns.ANSWERED, and what else was looked at. Times in microseconds."""

    sent: NDArray[np.void]
    answered: NDArray[np.void]
    answers: Answers
    records: int
    """How many the results hold since the run began, repeats included."""
    begin_us: int
    """Of the measured part."""
    complete: bool
    """Whether the producers sent all that was due."""
    append_clock: str
    metrics: Scraped
    """What the workers' metrics grew by."""
    used: dict[str, Used]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()


def to_be_answered(sent: NDArray[np.void], answers: Answers) -> NDArray[np.bool_]:
    """Which requests must be answered: those acknowledged, and of rubbish only headrace answers `failed`."""
    acknowledged: NDArray[np.bool_] = sent["acked_us"] >= 0
    return acknowledged if answers == "log" else acknowledged & sent["good"]
