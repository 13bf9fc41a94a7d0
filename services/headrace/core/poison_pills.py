"""Poison pills: a record that kills the process is found by trying the records alone that were in work when it died.

Before a worker tries the first batch of a partition after a resume, it writes an attempt to the log. A clean release
takes the attempt back and restores the earlier one. So if an attempt is still there at the next resume, its process
died.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace_schemas.records import Attempt

DEATHS_ALLOWED = 2
"""After so many deaths at one offset, the first perhaps in a batch, the record is not tried again."""


class Trial(msgspec.Struct, frozen=True):
    """How to go on from a resume position. Records up to ``alone_through`` are tried alone (-1: none). If
    ``condemned``, the first of them is answered ``failed`` untried. ``attempt`` is to be written. ``evidence`` is the
    attempt of the process that died; a clean release puts it back unless all records that it names are answered.
    """

    alone_through: int
    condemned: bool
    attempt: Attempt
    evidence: Attempt | None = None


def credible(attempt: Attempt, max_batch: int) -> bool:
    """Whether a worker with batches of at most ``max_batch`` requests could have written ``attempt``.

    A user who may write to the topic can forge one, with more requests than a batch has, or with an impossible number
    of deaths.
    """
    return (
        0 <= attempt.offset <= attempt.through < attempt.offset + max_batch
        and 0 <= attempt.deaths <= DEATHS_ALLOWED + 1
        and (attempt.alone or not attempt.deaths)
    )


def telling(standing: Iterable[Attempt], position: int) -> Attempt | None:
    """The attempt in the log with the most deaths at the resume ``position``; None when no attempt names it.

    There may be several, because workers of two releases write to two topics.
    """
    return max(
        (attempt for attempt in standing if attempt.offset <= position <= attempt.through),
        key=lambda attempt: (attempt.deaths if attempt.offset == position else -1, attempt.through),
        default=None,
    )


def trial(found: Attempt | None, fresh: Attempt) -> Trial:
    """Decide by the attempt ``found`` in the log. ``fresh`` is the attempt of this process if there is none."""
    mine = found is not None and found.process == fresh.process
    if found is None or mine or not found.offset <= fresh.offset <= found.through:
        return Trial(-1, condemned=False, attempt=fresh)
    # Requests that are tried alone share one attempt, so a death further on is the first at its own offset.
    deaths = min(found.deaths, DEATHS_ALLOWED) + 1 if fresh.offset == found.offset else 1
    alone = msgspec.structs.replace(fresh, through=found.through, alone=True, deaths=deaths)
    return Trial(found.through, condemned=deaths > DEATHS_ALLOWED, attempt=alone, evidence=found)
