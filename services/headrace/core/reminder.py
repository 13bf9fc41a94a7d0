"""When a log says something again that lasts or comes back: ever more rarely, so that it is seen and fills no log."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 10.0
LONGEST_S: Final = 600.0
PATIENCE_S: Final = 5.0
"""So long a command waits without a word."""


class Reminder:
    """Due at once for what is new, then after ``first_s``, then after twice as long each time, up to ``longest_s``.

    All times are seconds of a clock that never runs backwards.
    """

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._what: str | None = None
        self._wait_s = 0.0
        self._due_s = 0.0
        self._unsaid = 0
        self.again = False
        """Whether what was said last had been said before."""

    def due(self, what: str, now_s: float) -> bool:
        """Whether to say ``what`` now; a yes counts as said.

        Put no count and no time into ``what``: it would be new each time.
        """
        self.again = what == self._what
        if self.again and now_s < self._due_s:
            return False
        self._wait_s = min(2 * self._wait_s, self._longest_s) if self.again else self._first_s
        self._what, self._due_s = what, now_s + self._wait_s
        return True

    def count(self, times: int, now_s: float) -> int:
        """Add ``times`` events. Returns how many came since they were said last where that is due, otherwise 0."""
        self._unsaid += times
        if not self._unsaid or not self.due("", now_s):
            return 0
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid

    def done(self) -> None:
        """Forget what was said: the next thing is new."""
        self._what = None


class Overdue:
    """Due when something has lasted ``first_s``, and again each time that it has lasted twice as long."""

    def __init__(self, first_s: float) -> None:
        self._next_s = first_s
        self.said = False
        """Whether it was said at all, so that its end is worth a line too."""

    def due(self, lasted_s: float) -> bool:
        """Whether to say it now; a yes counts as said."""
        if lasted_s < self._next_s:
            return False
        self.said = True
        self._next_s = 2 * lasted_s
        return True
