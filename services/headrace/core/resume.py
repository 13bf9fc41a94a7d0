"""Where a worker goes on in a requests partition, and what it commits.

A worker resumes from its answers. The commit counts only where no answer is left; it also shows the lag in Kafka's
tools. Behind the last answered request there may be offsets without a record: a transaction's markers, aborted batches,
compacted records. A commit right behind the answered request would show them as lag for ever, and an autoscaler that
follows the lag would never scale in. So the commit lies behind them. If no answer is left, the next answer has to name
the request before it, which is not at the offset before the commit, so the text of the commit names it.

The worker gathers :class:`Facts` from the cluster and carries out the decision, which is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from headrace_schemas.records import Loss

_AFTER = re.compile(r"after=(-1|\d{1,19})")


def settled(*, answered: int, expected: int, fetched: int, gap: bool) -> int:
    """The offset before which every request is answered.

    ``answered`` is the offset behind the last acknowledged request, ``expected`` the one behind the last fetched
    request, and ``fetched`` how far the fetch has come; no request is in work now. ``gap``: the last chunk did not
    begin at ``expected``, so it is fetched again.
    """
    return max(answered, fetched) if answered == expected and not gap else answered


def to_commit(*, answered: int, settled: int, written: bool) -> int:
    """Choose the offset to commit. ``written``: the results partition holds or held an answer. Before that only
    ``answered`` counts, because a commit above the group's start beside an empty results log means that the results
    topic was made anew.
    """
    return max(answered, settled) if written else answered


def text_of(commit: int, last: int) -> str:
    """The text of a commit: the offset of the last answered request, if it is not the offset before the commit."""
    return "" if last == commit - 1 else f"after={last}"


def last_of(commit: int, text: str) -> int:
    """The offset of the last answered request, from a commit and its text. Texts of other programs are ignored."""
    found = _AFTER.fullmatch(text)
    return min(int(found[1]), commit - 1) if found else commit - 1


LARGEST_MAX_BATCH = 4096
"""The largest max_batch of any worker. Readers look back by it, because they can't read the workers' claim."""


def look_back(max_batch: int) -> int:
    """How many of the last answers to read. A zombie can append at most its one unacknowledged batch behind newer
    answers, and so can a later owner. So the last four batches hold the highest answered offset.
    """
    return 4 * max_batch


class Answered(msgspec.Struct, frozen=True):
    """The offset and the CRC-32 of a request, from an answer in the log."""

    offset: int
    crc: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster says of requests partition p and results partition p.

    ``tail`` holds the last answers of the results partition, in log order. ``results_end`` is its end offset; 0 means
    that it was never written. ``committed`` is the group's commit, ``start`` the offset at which the group began this
    partition by its claim. ``crc_at_last`` is the CRC-32 of the request at the highest answered offset, None when that
    record is no longer in the log. ``committed_last`` is the offset of the last answered request by the commit, None
    without a commit.
    """

    tail: tuple[Answered, ...]
    results_end: int
    requests_start: int
    requests_end: int
    committed: int | None
    start: int
    crc_at_last: int | None = None
    committed_last: int | None = None


class Resume(msgspec.Struct, frozen=True):
    """Fetch from ``position``. The first answer gets ``after``, and ``lost`` if there is any."""

    position: int
    after: int
    lost: Loss | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Going on would silently lose or mix answers. The worker stops and says why."""

    reason: str


def last_answered(tail: Iterable[Answered]) -> Answered | None:
    """The answer with the highest request offset, anywhere in the tail."""
    return max(tail, key=lambda answered: answered.offset, default=None)


def decide(facts: Facts) -> Resume | Refusal:
    """Resume behind the highest answered request; without one, at the commit or at the group's start."""
    last = last_answered(facts.tail)
    if last is not None:
        if facts.crc_at_last is not None and facts.crc_at_last != last.crc:
            return Refusal(
                f"the request at offset {last.offset} is not the one that was answered: the requests topic was made "
                "anew or cut and written again. Answer it into a new results topic with a new group"
            )
        return _from(last.offset + 1, facts)
    if facts.results_end > 0:
        if facts.committed is None:
            return Refusal(
                "the results partition holds nothing but once did, and the group has no commit, so what was answered "
                "is unknown. Commit the position to go on from with Kafka's own tools, or use a new results topic"
            )
        return _from(facts.committed, facts, facts.committed_last)
    if facts.committed is not None and facts.committed > facts.start:
        return Refusal(
            f"the group has committed offset {facts.committed} but the results partition was never written: the "
            "results topic was made anew. Give the group another name, or restore the topic"
        )
    return _from(facts.start, facts)


def _from(position: int, facts: Facts, last: int | None = None) -> Resume | Refusal:
    """``last`` is the offset of the request before ``position``, if it is not ``position`` - 1."""
    after = position - 1 if last is None else last
    if position > facts.requests_end:
        return Refusal(
            f"the next request is {position} but the requests partition ends at {facts.requests_end}: it was made "
            "anew or lost its tail. Answer it into a new results topic with a new group"
        )
    if position < facts.requests_start:
        lost = Loss(position, facts.requests_start - 1, "retention")
        return Resume(facts.requests_start, after, lost)
    return Resume(position, after)
