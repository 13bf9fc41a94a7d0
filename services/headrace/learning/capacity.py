"""What one training may take: how many labels, how long their names, and how much memory of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec
import psutil

from headrace.files import DatasetError
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.wide import FITTED_WHOLE, HISTORY, LOGITS_AT_ONCE

LARGE = 2**30
"""A training that takes so many bytes says so."""
MOST_NAME_BYTES = 512 * 1024
"""Of all labels' names: a version's record holds them, and Kafka takes a record of 1 MiB unless told otherwise."""

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
    that are learnt from with so many ``features`` in all, and ``valid`` texts.
    """

    columns: int
    words: int
    labels: int
    texts: int
    features: int
    valid: int


def training_bytes(sizes: Sizes, recipe: Recipe) -> int:
    """About how many bytes a training of ``sizes`` takes at most, beside those that the process has."""
    cells = sizes.columns * sizes.labels
    fitted = cells if sizes.labels <= FITTED_WHOLE else min(cells, sizes.features)
    logits = min(sizes.texts * sizes.labels, max(LOGITS_AT_ONCE, sizes.labels)) + sizes.valid * sizes.labels
    words = sizes.words * recipe.convolution.dimensions
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


def check_labels(labels: Sequence[str], most: int | None) -> None:
    """Raises DatasetError for more labels than ``most``, or names that no version's record can hold."""
    if most is not None and len(labels) > most:
        raise DatasetError(
            f"there are {len(labels):,} labels, and trainer.max_labels allows {most:,}. Where somebody publishes "
            "labels that are none, name the right ones in trainer.labels"
        )
    size = sum(len(label.encode("utf-8", "replace")) for label in labels)
    if size > MOST_NAME_BYTES:
        raise DatasetError(
            f"the names of the {len(labels):,} labels have {size:,} bytes together, and a version's record holds "
            f"{MOST_NAME_BYTES:,}. Give them shorter names"
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
