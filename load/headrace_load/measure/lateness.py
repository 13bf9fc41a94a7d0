"""Whether the harness itself kept to its times; a run in which it did not says nothing about who was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_load.result import Lateness

MOST_LATE = 0.01


def lateness(late_us: NDArray[np.int64], allowed_ms: float) -> Lateness | None:
    """How much later than due requests were sent, in milliseconds; None when none was."""
    if not len(late_us):
        return None
    p50, p99 = np.percentile(late_us, (50, 99)) / 1000
    return Lateness(
        p50=float(p50),
        p99=float(p99),
        max=float(late_us.max()) / 1000,
        late=float((late_us > allowed_ms * 1000).mean()),
    )


def too_late(found: Lateness | None, allowed_ms: float, *, complete: bool) -> str | None:
    """Why there is no verdict, None when the producers were good enough. ``complete``: they sent all that was due."""
    if complete and (found is None or found.late <= MOST_LATE):
        return None
    share = "" if found is None else f"{found.late:.1%} of their requests were sent more than {allowed_ms:g} ms late"
    unsent = "" if complete else "they could not send all that was due"
    said = " and ".join(filter(None, (share, unsent)))
    return f"the producers were late: {said}. Use more producers, another machine for them, or a lower rate."
