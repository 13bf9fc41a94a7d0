"""Which version answers: it is followed by its alias, loaded, checked, and swapped in.

When the alias moves, the version that it points at is loaded beside the one that answers, and replaces it between two
batches. The version that answered before stays in memory, so that a rollback needs no loading. A worker that started
after the move loads the alias's previous version when it has nothing else to load.

A version is loaded on a thread of its own, and checked on its own canaries. The thread has the usual priority. With a
lower one, it could be preempted while it holds the interpreter's lock, and stop every other thread (for 3 s, with two
busy programs).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from headrace.core.clock import Clock
from headrace.core.drift import Drift, DriftWindow
from headrace.core.errors import UserError, words_of
from headrace.core.text import quantity
from headrace.kafka.interface import KafkaError
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import open_backend
from headrace.model.places import Places
from headrace.process.logs import PATIENCE_S, Recurring, Reminder, event
from headrace.registry.compacted_topics import ModelsLog
from headrace.registry.versions import (
    NO_FLOOR,
    Floor,
    SeveralVersionsError,
    VersionNotFoundError,
    find_version,
    floor_of,
    load_version,
    nothing_named,
)
from headrace.worker import request_values
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages import encode
from headrace.worker.stages.infer import Breaker, Model
from headrace_schemas.records import ModelAlias, ModelVersion


class UnfitError(UserError):
    """A version loads, but does not answer as it did where it was trained."""


def open_version(record: ModelVersion, backend: str, trusted: Collection[str], places: Places) -> Model:
    """Load the version of ``record``, check it and make it ready. It blocks, so it needs a thread of its own.

    One of the public keys ``trusted`` must have signed it, if there are any, and it must lie in one of ``places``.
    Raises ArtifactError, BoundsError, FoldingError and UnfitError.
    """
    return open_model(load_version(record, trusted, places), backend, record.version)


def open_model(artifact: Artifact, backend: str, version: str) -> Model:
    """Make ``artifact`` ready to answer as ``version`` by the backend of that name: folded, compiled, verified.

    Raises BoundsError, FoldingError, and UnfitError when a canary does not get its label.
    """
    # The worker's own threads each take a batch; within a batch the backend needs none.
    opened = open_backend(backend, artifact, 1)
    opened.warm()
    encode.warm(version, artifact.labels)
    request_values.warm()
    about = artifact.about
    if about.profile is not None and len(about.profile.labels) != len(artifact.labels):
        raise UnfitError(
            f"{version}: its profile has {quantity(len(about.profile.labels), 'label')}, it has {len(artifact.labels)}"
        )
    # The constant backend asks no model, so there is nothing to verify.
    canaries = () if backend == "constant" else about.canaries
    model = Model(
        version,
        artifact.labels,
        opened,
        canaries=tuple((canary.text.encode(), canary.label) for canary in canaries),
        threshold=about.threshold,
        profile=about.profile,
        max_tokens=artifact.network.max_tokens,
        hashing=artifact.network.hashing,
    )
    if not model.canaries_answered():
        raise UnfitError(
            f"{version} does not give its canary texts the labels that it gave them where it was made: this machine "
            "or this release computes something else, so its answers could be wrong"
        )
    return model


T = TypeVar("T")

MOST_THREADS = 8
THREADS_EACH = 2
"""A version whose store hangs is tried again and again. It must not keep another version from being loaded."""


class Background:
    """Runs each piece of work on a daemon thread. If the caller is cancelled, the thread runs to its end.

    At most THREADS_EACH threads run for the same ``thing``, and MOST_THREADS in all; more work waits.
    """

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._ended = asyncio.Event()

    async def run(self, thing: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises."""
        while self._running[thing] >= THREADS_EACH or self._running.total() >= MOST_THREADS:
            self._ended.clear()
            await self._ended.wait()
        self._running[thing] += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            self._running[thing] -= 1
            self._running += Counter()  # forgets what has none
            self._ended.set()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

        def thread() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - raised where the result is awaited
                error = raised
            # The loop may be closed meanwhile, when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=thread, name="background", daemon=True).start()
        return await done


Load = Callable[[ModelVersion], Coroutine[Any, Any, Model]]
"""From the record of a version to a model that answers at once."""

POLL_S = 0.1
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


class Served(msgspec.Struct, frozen=True, eq=False):
    """A version that answers. ``replaced`` is set when another one answers; ``drift`` is None without a profile.

    ``model`` is ``loaded`` with the threshold that holds now.
    """

    model: Model
    loaded: Model
    breaker: Breaker
    drift: DriftWindow | None
    replaced: asyncio.Event


class Serving:
    """Holds the version that answers. A swap replaces it between two batches, so a batch has one version."""

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
        """The version that answers the next batch. Raises RuntimeError before the first one is loaded."""
        if self._now is None:
            raise RuntimeError("no version was loaded before the first batch")
        return self._now

    @property
    def broken(self) -> bool:
        """Whether the breaker of the version that answers is open."""
        return self._now is not None and self._now.breaker.open

    def swap(self, model: Model, floor: Floor = NO_FLOOR) -> Model | None:
        """Let ``model`` answer from the next batch on. Returns the model that answered before, as it was loaded."""
        old = self._now
        window = None if model.profile is None else DriftWindow(model.profile)
        raised = _raised(model, floor)
        self._now = Served(raised, model, Breaker(self._breaker_threshold), window, asyncio.Event())
        self._metrics.model(model.version)
        self._metrics.threshold(raised.threshold)
        self._metrics.breaker(is_open=False)
        if old is None:
            return None
        old.replaced.set()
        event("model.swapped", version=model.version, before=old.model.version)
        return old.loaded

    def keep_to(self, floor: Floor) -> None:
        """From the next batch on, an answer below ``floor`` has no label. The artifact's threshold holds if higher."""
        if self._now is None:
            return
        raised = _raised(self._now.loaded, floor)
        before = self._now.model.threshold
        if raised.threshold == before:
            return
        self._now = msgspec.structs.replace(self._now, model=raised)
        self._metrics.threshold(raised.threshold)
        event("model.threshold", version=raised.version, threshold=raised.threshold, before=before, why=floor.why)

    def drift(self, now_s: float) -> Drift | None:
        """The drift of the answers of this version; None while there are too few."""
        if self._now is None or self._now.drift is None:
            return None
        return self._now.drift.measure(now_s)


def _raised(model: Model, floor: Floor) -> Model:
    """``model`` with the higher of the two thresholds."""
    if floor.score <= (model.threshold or 0.0):
        return model
    return msgspec.structs.replace(model, threshold=floor.score)


class LoadTimeoutError(UserError):
    """A version was not loaded in time."""


class _Loading(msgspec.Struct, frozen=True, eq=False):
    """A load under way. ``task`` returns the model, or raises why there is none."""

    version: str
    begun_s: float
    task: asyncio.Task[Model]


class _Retry(msgspec.Struct, frozen=True):
    """``version`` could not be loaded. It is tried again at ``at_s``, ``wait_s`` after the last try."""

    version: str = ""
    wait_s: float = 0.0
    at_s: float = 0.0


class Follower:
    """Keeps ``serving`` at the version that ``alias`` of model ``name`` points at.

    If ``alias`` names a version instead, as :func:`find_version` takes it, that version answers for good. A version
    that can't be loaded is tried again, after ever longer waits, while the alias points at it; the old version answers
    meanwhile. When the alias moves fast, only the newest version is loaded. Certificates count that one of the public
    keys ``trusted`` has signed, where there are any.
    """

    def __init__(
        self,
        log: ModelsLog,
        serving: Serving,
        *,
        name: str,
        alias: str,
        load: Load,
        load_timeout: float,
        keep_previous: bool,
        clock: Clock,
        metrics: WorkerMetrics,
        trusted: Collection[str] = (),
    ) -> None:
        self._log = log
        self._serving = serving
        self._name = name
        self._alias = alias
        self._load = load
        self._load_timeout = load_timeout
        self._keep_previous = keep_previous
        self._clock = clock
        self._metrics = metrics
        self._trusted = trusted
        self._loading: _Loading | None = None
        self._retry = _Retry()
        self._kept: Model | None = None
        """The version that answered before, for a rollback."""
        self._not_kept: ModelAlias | None = None
        """The alias when its previous version could not be loaded. The version is tried again after the next move."""
        self._unknown: ModelAlias | None = None
        """The alias at the time an event said that it points at a version without a record."""
        self._pinned: str | None = None
        """The version that ``alias`` names, if it is no alias."""
        self._reminder = Reminder()
        self._awaited = ""
        self._awaited_since_s = 0.0
        self._failed_to_look = Recurring("follow.failed")
        self.waiting_for = ""
        """What the first version waits for, in words. It has no meaning once a version answers."""

    async def first(self) -> None:
        """Return when there is a version that answers.

        Raises a KafkaError that can't be mended here, and SeveralVersionsError for the beginning of several versions.
        """
        while self._serving.version is None:
            await self._turn()

    async def run(self) -> None:
        """Follow the alias until cancelled. Raises a KafkaError that trying again can't mend."""
        while True:
            await self._turn()

    def stop(self) -> None:
        """Give up what is being loaded."""
        if self._loading is not None:
            self._loading.task.cancel()
            self._loading = None

    async def _turn(self) -> None:
        try:
            await self._log.look()
        except KafkaError as error:
            if not error.retriable:
                raise
            self._failed_to_look.event(error=str(error))
        target = self._target()
        if self._loading is not None and self._loading.task.done():
            self._collect(self._loading, target)
        self._aim(target)
        if target is not None and target.version == self._serving.version:
            self._serving.keep_to(floor_of(self._log, target, self._trusted))
        if target is None:
            self._say_unknown()
        if self._serving.version is None:
            self._say_waiting(target)
        await self._clock.sleep(POLL_S)

    def _target(self) -> ModelVersion | None:
        """The version that should answer, None if there is none."""
        if self._pinned is not None:
            return self._log.versions.get((self._name, self._pinned))
        if (self._name, self._alias) in self._log.aliases or self._serving.version is not None:
            return self._log.resolve(self._name, self._alias)
        try:
            found = find_version(self._log, self._name, self._alias)
        except SeveralVersionsError:
            raise
        except VersionNotFoundError:
            return None
        # Kept: a later version whose name begins in the same way must change nothing.
        self._pinned = found.version
        event("model.pinned", version=found.version, why=f"{self._alias!r} names this version, and is no alias")
        return found

    def _aim(self, target: ModelVersion | None) -> None:
        """Swap to the alias's version, or begin to load it. When it answers, load the previous one for a rollback."""
        if target is None:
            return
        if target.version == self._serving.version:
            self._retry = _Retry()
            before = self._before()
            if before is not None and (self._kept is None or self._kept.version != before.version):
                self._begin(before)
        elif self._kept is not None and self._kept.version == target.version:
            self._swap(self._kept)
        elif self._retry.version != target.version or self._clock.monotonic() >= self._retry.at_s:
            self._begin(target)

    def _before(self) -> ModelVersion | None:
        """The previous version, to be kept for a rollback; None if there is none or it can't be loaded."""
        pointer = self._log.aliases.get((self._name, self._alias))
        if not self._keep_previous or pointer is None or pointer.previous in {None, pointer.version}:
            return None
        return None if pointer == self._not_kept else self._log.versions.get((self._name, pointer.previous or ""))

    def _begin(self, wanted: ModelVersion) -> None:
        if self._loading is not None and self._loading.version == wanted.version:
            return
        self.stop()
        event("model.loading", version=wanted.version, uri=wanted.uri)
        task = asyncio.create_task(self._load_in_time(wanted), name="load")
        self._loading = _Loading(wanted.version, self._clock.monotonic(), task)

    async def _load_in_time(self, wanted: ModelVersion) -> Model:
        limit = asyncio.timeout(self._load_timeout)
        try:
            async with limit:
                return await self._load(wanted)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise LoadTimeoutError(f"{wanted.uri} was not loaded within {self._load_timeout:g} s") from error

    def _collect(self, loading: _Loading, target: ModelVersion | None) -> None:
        self._loading = None
        error = loading.task.exception()
        wanted = target is not None and target.version == loading.version
        if error is not None:
            self._failed(loading.version, words_of(error), wanted=wanted)
            return
        event("model.loaded", version=loading.version, seconds=round(self._clock.monotonic() - loading.begun_s, 3))
        before = self._before()
        if wanted:
            self._swap(loading.task.result())
        elif before is not None and before.version == loading.version:
            self._kept = loading.task.result()

    def _failed(self, version: str, why: str, *, wanted: bool) -> None:
        self._metrics.model_load_failed()
        if not wanted:
            self._not_kept = self._log.aliases.get((self._name, self._alias))
            event("model.not_kept", level="warning", version=version, why=why)
            return
        again = self._retry.version == version
        wait_s = min(LONGEST_RETRY_S, 2 * self._retry.wait_s) if again else FIRST_RETRY_S
        self._retry = _Retry(version, wait_s, self._clock.monotonic() + wait_s)
        self.waiting_for = f"version {version} can't be loaded: {why}"
        event(
            "model.load_failed", level="error", version=version, why=why, answers=self._serving.version, retry_s=wait_s
        )

    def _swap(self, model: Model) -> None:
        record = self._log.versions.get((self._name, model.version))
        floor = NO_FLOOR if record is None else floor_of(self._log, record, self._trusted)
        old = self._serving.swap(model, floor)
        self._kept = old if self._keep_previous else None

    def _say_waiting(self, target: ModelVersion | None) -> None:
        """Say why nothing is answered, at once and then after ever longer waits."""
        if target is None:
            self.waiting_for = nothing_named(self._log, self._name, self._alias, followed=True)
        elif self._retry.version != target.version:
            self.waiting_for = f"version {target.version} is being loaded"
        now = self._clock.monotonic()
        if self.waiting_for != self._awaited:
            # The first reason is said at once. Another one may be gone in a moment: an alias follows its version.
            self._awaited_since_s = now if self._awaited else now - PATIENCE_S
            self._awaited = self.waiting_for
        if now - self._awaited_since_s < PATIENCE_S:
            return
        if target is None and self._reminder.due(self.waiting_for, now):
            level = "info" if self._reminder.again else "warning"
            event("model.awaited", level=level, why=self.waiting_for)

    def _say_unknown(self) -> None:
        """Say, once for each move, that the alias points at a version without a record. The old version answers on."""
        pointer = self._log.aliases.get((self._name, self._alias))
        if pointer is None or pointer == self._unknown:
            return
        self._unknown = pointer
        event(
            "model.unknown", level="warning", alias=self._alias, version=pointer.version, answers=self._serving.version
        )
