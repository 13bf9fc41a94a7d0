"""What a program is told by its environment, as `headrace_load.contender` and `load.peers.contenders` set it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Where requests come from and answers go; ``model`` is a folder of `load.peers.export` (empty for an echo)."""

    bootstrap: str
    requests: str
    results: str
    group: str
    model: str
    engine: str
    threads: int


def from_environment() -> Settings:
    """Raises KeyError naming a variable that is missing."""
    return Settings(
        bootstrap=os.environ["BOOTSTRAP"],
        requests=os.environ["REQUESTS"],
        results=os.environ["RESULTS"],
        group=os.environ["GROUP"],
        model=os.environ.get("MODEL", ""),
        engine=os.environ.get("ENGINE", "torch"),
        threads=int(os.environ.get("THREADS", "1")),
    )
