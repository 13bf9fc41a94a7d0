"""A record that kills the process: found by trying alone what was in work when processes died.

Before a worker hands over the first batch of a partition that it has taken up, it writes an attempt to the log; a
clean release takes it back. An attempt that is still there when the partition is taken up again stood when its
process died.
"""

from __future__ import annotations

import msgspec

DEATHS_ALLOWED = 1
"""Deaths with one record alone in work, or first in a batch, after which it is tried once more, alone."""


class Standing(msgspec.Struct, frozen=True):
    """An attempt that was not taken back: work from ``offset``, ``alone`` one by one up to ``through``.

    ``deaths`` counts the processes that died at exactly ``offset``. ``process`` is who tried.
    """

    offset: int
    through: int
    alone: bool
    deaths: int
    process: str


class Trial(msgspec.Struct, frozen=True):
    """How to work from a resume position: records up to ``alone_through`` alone (-1: none), and the first of them
    answered ``failed`` untried when ``condemned``. ``standing`` is the attempt to write.
    """

    alone_through: int
    condemned: bool
    standing: Standing


def trial(standing: Standing | None, position: int, *, max_batch: int, process: str) -> Trial:
    """Decide from the attempt that was found, when ``process`` resumes at ``position``."""
    mine = standing is not None and standing.process == process
    if standing is None or mine or not standing.offset <= position <= standing.through:
        return Trial(-1, condemned=False, standing=Standing(position, position + max_batch - 1, False, 0, process))
    # Alone, an attempt moves on without a new record, so a death further on is the first at its own offset.
    deaths = standing.deaths + 1 if position == standing.offset else 1
    through = max(standing.through, position)
    return Trial(
        through,
        condemned=deaths > DEATHS_ALLOWED,
        standing=Standing(position, through, True, deaths, process),
    )
