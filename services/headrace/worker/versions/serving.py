"""Serving: the version that answers now, with the state that belongs to it alone."""

from __future__ import annotations

import asyncio

import msgspec

from headrace.core.breaker import Breaker
from headrace.core.drift import Drift, DriftWindow
from headrace.process.logs import event
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model


class Served(msgspec.Struct, frozen=True, eq=False):
    """A version while it answers. ``replaced`` is set when another one does; ``drift`` is None without a profile."""

    model: Model
    breaker: Breaker
    drift: DriftWindow | None
    replaced: asyncio.Event


class Serving:
    """Holds what answers. A swap replaces it between two batches; a batch goes on with the one it began with."""

    def __init__(self, *, breaker_threshold: int, metrics: WorkerMetrics) -> None:
        self._breaker_threshold = breaker_threshold
        self._metrics = metrics
        self._now: Served | None = None

    @property
    def version(self) -> str | None:
        """The version that answers, None before the first."""
        return None if self._now is None else self._now.model.version

    @property
    def now(self) -> Served:
        """What the next batch is answered by. Raises RuntimeError before the first version is there."""
        if self._now is None:
            raise RuntimeError("no version was loaded before the first batch")
        return self._now

    @property
    def broken(self) -> bool:
        """Whether the breaker of the version that answers is open."""
        return self._now is not None and self._now.breaker.open

    def swap(self, model: Model) -> Model | None:
        """Let ``model`` answer from the next batch on; returns what answered before."""
        old = self._now
        window = None if model.profile is None else DriftWindow(model.profile)
        self._now = Served(model, Breaker(self._breaker_threshold), window, asyncio.Event())
        self._metrics.model(model.version)
        self._metrics.breaker(is_open=False)
        if old is None:
            return None
        old.replaced.set()
        event("model.swapped", version=model.version, before=old.model.version)
        return old.model

    def drift(self, now_s: float) -> Drift | None:
        """How far the answers of the version that answers now have drifted, None while too few are known."""
        if self._now is None or self._now.drift is None:
            return None
        return self._now.drift.measure(now_s)
