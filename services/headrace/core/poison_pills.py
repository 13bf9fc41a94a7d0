"""A record that kills the process: found by trying alone what was in work when processes died.

Before a worker hands over the first batch of a partition that it has taken up, it writes an attempt to the log; a
clean release takes it back, so that the log tells what it told before. An attempt that is still there when the
partition is taken up again stood when its process died.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace_schemas.records import Attempt

DEATHS_ALLOWED = 2
"""Deaths at one offset, the first perhaps in a batch, after which the record is tried no more."""


class Trial(msgspec.Struct, frozen=True):
    """How to work from a resume position: records up to ``alone_through`` alone (-1: none), and the first of them
    answered ``failed`` untried when ``condemned``. ``attempt`` is to be written. ``evidence`` is the attempt of the
    process that died, to be put back by a clean release that comes before all it names are answered.
    """

    alone_through: int
    condemned: bool
    attempt: Attempt
    evidence: Attempt | None = None


def credible(attempt: Attempt, max_batch: int) -> bool:
    """Whether a worker with batches of at most ``max_batch`` requests could have written ``attempt``.

    Whoever may write the topic can forge one: of far more requests than a batch, or of deaths that nobody could have
    counted.
    """
    return (
        0 <= attempt.offset <= attempt.through < attempt.offset + max_batch
        and 0 <= attempt.deaths <= DEATHS_ALLOWED + 1
        and (attempt.alone or not attempt.deaths)
    )


def telling(standing: Iterable[Attempt], position: int) -> Attempt | None:
    """Of the attempts that stand in the log, the one that accuses most at a resume ``position``; None when none does.

    There are several while workers of two versions run, which write to two topics.
    """
    return max(
        (attempt for attempt in standing if attempt.offset <= position <= attempt.through),
        key=lambda attempt: (attempt.deaths if attempt.offset == position else -1, attempt.through),
        default=None,
    )


def trial(found: Attempt | None, fresh: Attempt) -> Trial:
    """Decide from the attempt that stands in the log, for a process that would make the ``fresh`` one."""
    mine = found is not None and found.process == fresh.process
    if found is None or mine or not found.offset <= fresh.offset <= found.through:
        return Trial(-1, condemned=False, attempt=fresh)
    # Alone, an attempt moves on without a new record, so a death further on is the first at its own offset.
    deaths = min(found.deaths, DEATHS_ALLOWED) + 1 if fresh.offset == found.offset else 1
    alone = msgspec.structs.replace(fresh, through=found.through, alone=True, deaths=deaths)
    return Trial(found.through, condemned=deaths > DEATHS_ALLOWED, attempt=alone, evidence=found)
