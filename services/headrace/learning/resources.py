"""What a training takes: how many labels it may have, how much memory it needs, and how much time remains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import psutil

from headrace.files import DatasetError
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.wide import FITTED_WHOLE, HISTORY, LOGITS_AT_ONCE

LARGE = 2**30
"""A training that takes so many bytes says so."""

_FLOAT = 4
# Vectors as long as the weights that are fitted: point, slopes, direction, those before, and what a line search keeps.
_VECTORS = 12
# Tables as large as all weights: their counts in eight bytes, ratios and weights.
_TABLES = 4
# Networks that are held at once while one is compressed: whole, pruned, fitted again, quantized.
_NETWORKS = 4
# The logits themselves, their softmax and its gradient, and those of both parts blended.
_LOGITS = 6
# The words' table, its gradient, two moments, the best epoch's and a checkpoint; a word shares some three parts.
_WORDS = 6 * 4


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What the memory of a training goes by: ``columns`` of the wide part, ``words`` of them; ``labels``; ``texts``
    that are learnt from with so many ``features`` in all, and ``valid`` texts. So many ``networks`` are fitted side by
    side.
    """

    columns: int
    words: int
    labels: int
    texts: int
    features: int
    valid: int
    networks: int = 1


def training_bytes(sizes: Sizes, recipe: Recipe) -> int:
    """About how many bytes a training of ``sizes`` takes at most, beside those that the process has."""
    cells = sizes.columns * sizes.labels
    fitted = cells if sizes.labels <= FITTED_WHOLE else min(cells, sizes.features)
    logits = min(sizes.texts * sizes.labels, max(LOGITS_AT_ONCE, sizes.labels)) + sizes.valid * sizes.labels
    words = sizes.networks * sizes.words * recipe.convolution.dimensions
    return _FLOAT * (
        (2 * HISTORY + _VECTORS) * fitted + (_TABLES + _NETWORKS) * cells + _LOGITS * logits + _WORDS * words
    )


def free_memory(root: Path = Path("/"), machine: Callable[[], int] = lambda: psutil.virtual_memory().available) -> int:
    """Bytes that this process can still take: what the ``machine`` has, or less where a control group allows less.

    Both versions of control groups are read, below ``root``, each with the groups that it is in.
    """
    return max(0, min([machine(), *_left_of_groups(root)]))


def require_memory(need: int, free: int, labels: int) -> None:
    """Raises DatasetError when a training of so many ``labels`` needs more bytes than are free."""
    if need > free:
        raise DatasetError(
            f"training {labels:,} labels takes about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free "
            "here. Train on a machine, or in a container, with more, or on fewer labels (trainer.labels names those "
            "that count)"
        )


def _left_of_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path may be that of the host, of which only the own end is mounted: what is there counts.
        names = [name for name in PurePosixPath(path).parts if name not in ("/", "..")]
        for depth in range(len(names) + 1):
            if not controllers:
                group = mounts.joinpath(*names[:depth])
                yield from _left(group / "memory.max", group / "memory.current", group, "inactive_file ")
            elif "memory" in controllers.split(","):
                group = mounts.joinpath("memory", *names[:depth])
                used = group / "memory.usage_in_bytes"
                yield from _left(group / "memory.limit_in_bytes", used, group, "total_inactive_file ")


def _left(limit: Path, used: Path, group: Path, cached: str) -> Iterator[int]:
    """What a group's limit leaves; nothing where it has none. Pages of files that nobody uses are given up first."""
    try:
        allowed = limit.read_text().strip()
        if allowed != "max":
            lines = (group / "memory.stat").read_text().splitlines()
            cache = sum(int(line.removeprefix(cached)) for line in lines if line.startswith(cached))
            yield int(allowed) - int(used.read_text()) + cache
    except (OSError, ValueError):
        return


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
        # With machine rows the search comes several times, from the first epoch on: how often is not known here.
        anew = number <= self._searched
        self._searched, self._last_epoch = number, now
        if self._first is None or anew:
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
