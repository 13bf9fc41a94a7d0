"""Opening: from an artifact to a version that can answer at once, checked on its own canaries.

Work beside the answering: on threads of their own, that nobody has to wait for.

They have the priority of all others. A lower one would be worse for the answering: preempted while it holds the
interpreter's lock, such a thread stops every other (3 s were seen where two busy programs had the cores).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

from headrace.core.errors import UserError
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import open_backend
from headrace.model.places import Places
from headrace.registry.versions import load_version
from headrace.worker.stages.encode import plain_answers
from headrace.worker.stages.infer import Model
from headrace_schemas.records import ModelVersion


class UnfitError(UserError):
    """A version loads, but does not answer as it did where it was made."""


def open_version(record: ModelVersion, backend: str, trusted: Collection[str], places: Places) -> Model:
    """Load the version of ``record``, check it and make it ready. It blocks: for a thread of its own.

    ``trusted`` are the public keys of which one has to have signed it, if there are any; ``places`` are those where it
    may lie. Raises ArtifactError, BoundsError, FoldingError and UnfitError.
    """
    return open_model(load_version(record, trusted, places), backend, record.version)


def open_model(artifact: Artifact, backend: str, version: str) -> Model:
    """Make ``artifact`` ready to answer as ``version`` by the backend of that name: folded, compiled, verified.

    Raises BoundsError, FoldingError, and UnfitError when a canary does not get its label.
    """
    # The worker's own threads each take a batch; within a batch the backend needs none.
    opened = open_backend(backend, artifact, 1)
    opened.warm()
    plain_answers(version, artifact.labels).warm()
    about = artifact.about
    if about.profile is not None and len(about.profile.labels) != len(artifact.labels):
        raise UnfitError(
            f"{version}: its profile has {len(about.profile.labels)} labels, it has {len(artifact.labels)}"
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
"""A version that hangs on its store, and is tried again and again, must not keep another from being loaded."""


class Background:
    """Starts a daemon thread for each piece of work; a cancelled one runs on unheard.

    At most THREADS_EACH run at once for the same ``thing``, and MOST_THREADS in all; more work waits.
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
            except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
                error = raised
            # A loop that was closed meanwhile belongs to a process that is ending.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=thread, name="background", daemon=True).start()
        return await done
