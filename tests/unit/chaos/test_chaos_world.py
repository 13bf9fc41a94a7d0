"""Which worker a fault strikes."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from load.chaos.world import Worker, World


def worker(name: str, folder: Path, *assigned: list[int]) -> Worker:
    """A running worker that was told of these assignments, one after the other."""
    log = folder / f"{name}.log"
    lines = [msgspec.json.encode({"event": "partitions.assigned", "partitions": given}) for given in assigned]
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    running: Any = SimpleNamespace(pid=0, code=None, printed=log.read_bytes)
    return Worker(name, running, AsyncExitStack())


@pytest.mark.parametrize("seed", range(8))
def test_a_fault_strikes_a_worker_that_owns_partitions(tmp_path, seed):
    # One that owns none is ready too, but nothing passes between it and the broker that a fault could wait for.
    known = [
        worker("w0", tmp_path, [], [0, 1, 2, 3]),
        worker("w1", tmp_path, []),
        worker("w2", tmp_path, [2, 3], []),
        worker("w3", tmp_path),
    ]
    unused: Any = None
    workers: Any = SimpleNamespace(running={one.name: one for one in known})
    world = World(
        cluster=unused,
        system=unused,
        workers=workers,
        stream=unused,
        rng=random.Random(seed),
        folder=tmp_path,
        model=tmp_path,
    )
    assert world.any_worker().name == "w0"
