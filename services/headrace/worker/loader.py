"""Load a version: from an artifact to a model that answers at once, checked on its own canaries.

It is loaded on a thread of its own, beside the answering. The thread has the usual priority. With a lower one, it could
be preempted while it holds the interpreter's lock, and stop every other thread (for 3 s, with two busy programs).
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
