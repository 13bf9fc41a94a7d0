"""When something that lasts is said again: first after a while, then each time that it has lasted twice as long."""

from __future__ import annotations


class Reminder:
    """For one thing that lasts; ``first_s`` is how long it lasts, in seconds, before it is worth a word."""

    def __init__(self, first_s: float) -> None:
        self._next_s = first_s
        self.said = False
        """Whether it was said at all, so that its end is worth a word too."""

    def due(self, lasted_s: float) -> bool:
        """Whether it is to be said now that it has lasted ``lasted_s``."""
        if lasted_s < self._next_s:
            return False
        self.said = True
        self._next_s = 2 * lasted_s
        return True
