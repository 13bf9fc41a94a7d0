"""How long a training still takes, by how long its epochs have taken so far: a guess, and said as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What compression costs, in epochs: the networks that are trained on, mostly. Measured on BBC News.
_COMPRESSION_EPOCHS = 11.0
_COARSE_EPOCHS = 3.0
# A guess that was too short goes on at this share of itself, and never below.
_LEAST_SHARE = 0.1


class Remaining:
    """Told of a training's events, says how many seconds are left.

    The search may end before ``epochs``, so what is said falls faster than the clock then. ``compresses`` and
    ``coarse`` say whether there is a compression, and which.
    """

    def __init__(self, epochs: int, *, compresses: bool, coarse: bool) -> None:
        self._epochs = epochs
        self._compression = 0.0
        if compresses:
            self._compression = _COARSE_EPOCHS if coarse else _COMPRESSION_EPOCHS
        self._first: tuple[float, int] | None = None
        self._epoch_s: float | None = None
        self._searched = 0
        self._last_epoch = 0.0
        self._refit: tuple[float, int] | None = None

    def after(self, said: Mapping[str, Any], now: float) -> float | None:
        """Seconds left after the event ``said`` at the moment ``now``, None where nobody can tell yet."""
        match said["event"]:
            case "training.epoch":
                return self._after_epoch(said["number"], now)
            case "training.compressed" if self._epoch_s is not None:
                whole = self._compression * self._epoch_s
                left = max(whole - (now - self._last_epoch), _LEAST_SHARE * whole)
                return left + self._searched * self._epoch_s
            case "training.refit":
                return self._after_refit(said["number"], said["total"], now)
        return None

    def _after_epoch(self, number: int, now: float) -> float | None:
        self._searched, self._last_epoch = number, now
        if self._first is None:
            # What came before it was preparing too, so its own length is not known.
            self._first = now, number
            return None
        begun, at = self._first
        self._epoch_s = (now - begun) / (number - at)
        return self._epoch_s * (self._epochs - number + self._compression + self._epochs)

    def _after_refit(self, number: int, total: int, now: float) -> float | None:
        if self._refit is None:
            self._refit = now, number
            return None if self._epoch_s is None else (total - number) * self._epoch_s
        begun, at = self._refit
        return (total - number) * (now - begun) / (number - at)


def in_words(seconds: float) -> str:
    """As somebody who waits would say it: by tens of seconds, then by minutes."""
    if seconds < 95:
        return f"about {max(10, 10 * round(seconds / 10))} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"
