"""The audit of a results topic: read as a user does, and held against what was acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.client import Client, Published
from headrace_load.measure.audit import ANSWERED, SENT, STATUSES, Audit, audited

QUIET_S = 5.0


async def audit(client: Client, published: Sequence[Published], *, quiet_s: float = QUIET_S) -> Audit:
    """Read the results topic from its beginning, as a user does, and compare it with what was acknowledged.

    It ends when no answer comes for ``quiet_s`` seconds.
    """
    sent = np.zeros(len(published), SENT)
    sent["good"] = True
    for name in ("partition", "offset", "crc"):
        sent[name] = [getattr(place, name) for place in published]
    rows: list[tuple[int, ...]] = []
    async with client.reader("earliest") as reader:
        begins = sum(place.position for place in reader.positions.values())
        while answers := await reader.read(timeout_s=quiet_s):
            rows += [
                (
                    -1,
                    answer.partition,
                    answer.result.offset,
                    answer.position,
                    answer.result.crc,
                    STATUSES.index(answer.result.status),
                    answer.hole is not None,
                    answer.timestamp_ms * 1000,
                    -1,
                )
                for answer in answers
            ]
        records = sum(place.position for place in reader.positions.values()) - begins
    return audited(sent, np.array(rows, ANSWERED), "log", records=records)
