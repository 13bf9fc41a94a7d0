"""When to say again what is waited for: at once when it is something else, then ever more rarely."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 10.0
LONGEST_S: Final = 600.0
PATIENCE_S: Final = 5.0
"""So long a command waits without a word."""


class Reminder:
    """Remembers what was said last. Times are seconds of a clock that never runs backwards."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._what: str | None = None
        self._wait_s = 0.0
        self._due_s = 0.0
        self.again = False
        """Whether what was said last had been said before."""

    def due(self, what: str, now_s: float) -> bool:
        """Whether to say now that ``what`` is waited for; a yes counts as said.

        What changes all the time, such as a count, doesn't belong into ``what``.
        """
        self.again = what == self._what
        if self.again and now_s < self._due_s:
            return False
        self._wait_s = min(2 * self._wait_s, self._longest_s) if self.again else self._first_s
        self._what, self._due_s = what, now_s + self._wait_s
        return True

    def done(self) -> None:
        """Nothing is waited for any more: the next thing is new, whatever it is."""
        self._what = None
