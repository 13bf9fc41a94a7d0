"""How far a run is, as whoever shows it needs to know it."""

from __future__ import annotations

from msgspec import Struct


class Progress(Struct, frozen=True, kw_only=True):
    """A moment of a run, about once a second. Counts are of the whole run so far, warm-up included.

    ``elapsed_s`` is since the run's beginning, of ``whole_s``, its planned length in seconds, warm-up included; a
    backlog has no planned length, so there ``whole_s`` is None and the bar is of ``answered`` among ``requests``.
    ``late_p99_ms`` is how much later than due the harness sent, None before anything was sent; ``answered`` is None
    while nobody reads answers (a workload that reads ``after``). ``phase`` is one word: starting, warm-up,
    publishing, measuring, settling, reading.
    """

    phase: str
    elapsed_s: float
    whole_s: float | None
    requests: int | None
    """How many there will be, where it is known."""
    due: int
    sent: int
    acked: int
    answered: int | None
    late_p99_ms: float | None

    @property
    def lag(self) -> int | None:
        """Acknowledged and not answered yet."""
        return None if self.answered is None else max(0, self.acked - self.answered)
