"""What a worker commits for a requests partition, so that the lag that Kafka's tools show comes to 0.

Behind the last answered request there may be offsets without a record: a transaction's markers, aborted batches, what
compaction took. A commit behind the answer alone would show them as lag for ever, and an autoscaler that looks at the
lag would never scale in. A worker resumes from its answers; the commit counts only where none are left of them. Then
the next answer has to name the request before it, which isn't the offset before the commit, so the commit's text does.
"""

from __future__ import annotations

import re

_AFTER = re.compile(r"after=(-1|\d{1,19})")


def settled(*, answered: int, expected: int, fetched: int, gap: bool) -> int:
    """The offset in front of which every request is answered.

    ``answered`` is behind the last acknowledged answer, ``expected`` behind the last request that was fetched, and
    ``fetched`` how far the fetch has come, of which nothing is under way now. ``gap``: whether what was fetched did not
    follow on what was expected, so that it is fetched again.
    """
    return max(answered, fetched) if answered == expected and not gap else answered


def to_commit(*, answered: int, settled: int, written: bool) -> int:
    """``written``: whether the results partition holds, or held, an answer. Until then nothing but the answers counts:
    a commit above the group's start and an empty results log together mean that the results topic was made anew.
    """
    return max(answered, settled) if written else answered


def text_of(commit: int, last: int) -> str:
    """The text that is kept with a commit: the offset of the last answered request where it isn't the one before."""
    return "" if last == commit - 1 else f"after={last}"


def last_of(commit: int, text: str) -> int:
    """The offset of the last answered request, by a commit and its text. Somebody else's text says nothing."""
    found = _AFTER.fullmatch(text)
    return min(int(found[1]), commit - 1) if found else commit - 1
