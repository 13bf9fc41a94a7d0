"""From a version's record to a model that answers: what is checked on the way, and beside what it happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from headrace.model.artifact import About, Artifact, Canary, assemble, save
from headrace.model.backends.interface import open_backend
from headrace.model.errors import ArtifactError
from headrace.registry.versions import version_record
from headrace.worker.versions import MOST_THREADS, Background, UnfitError, open_model, open_version
from headrace_schemas.records import Profile
from tests.support.networks import random_artifact
from tests.support.places import ANYWHERE

TEXT = "the good film"


def with_canary(*, right: bool, **about: object) -> Artifact:
    """A random version that carries the label it gives, or another one."""
    draft = random_artifact(3)
    given = int(open_backend("cpu", draft).classify([TEXT.encode()]).labels[0])
    label = draft.labels[given if right else (given + 1) % len(draft.labels)]
    return assemble(draft.network, About(canaries=(Canary(TEXT, label),), **about))


def test_a_version_that_answers_its_canaries_is_opened_with_all_that_it_carries() -> None:
    profile = Profile((0.5, 0.25, 0.25), (0.1,) * 10)
    artifact = with_canary(right=True, threshold=0.4, profile=profile)
    model = open_model(artifact, "cpu", "v7")
    assert (model.version, model.labels, model.threshold, model.profile) == ("v7", artifact.labels, 0.4, profile)
    assert model.canaries_answered()


def test_a_version_that_answers_its_canaries_otherwise_is_refused() -> None:
    with pytest.raises(UnfitError, match="v7 does not give its canary texts"):
        open_model(with_canary(right=False), "cpu", "v7")


def test_the_constant_backend_asks_no_model_so_it_opens_whatever_the_canaries_say() -> None:
    assert open_model(with_canary(right=False), "constant", "v7").canaries_answered()


def test_a_profile_of_other_labels_is_refused() -> None:
    artifact = with_canary(right=True, profile=Profile((1.0,), (0.1,) * 10))
    with pytest.raises(UnfitError, match="its profile has 1 label, it has 3"):
        open_model(artifact, "cpu", "v7")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size": 1}, "bytes"),
        ({"labels": ("others",)}, "labels"),
        ({"uri": "memory://nowhere"}, "no such artifact"),
    ],
)
def test_an_artifact_that_is_not_the_one_recorded_is_refused(wrong: dict[str, object], said: str) -> None:
    artifact, uri = with_canary(right=True), "memory://opening/a.safetensors"
    save(artifact, uri)
    record = version_record(artifact, name="default", where=ANYWHERE.locate(uri), now_ms=1)
    assert open_version(record, "cpu", (), ANYWHERE).version == artifact.version
    with pytest.raises(ArtifactError, match=said):
        open_version(msgspec.structs.replace(record, **wrong), "cpu", (), ANYWHERE)


async def test_work_beside_the_loop_gives_its_result_or_its_error() -> None:
    background = Background()
    assert await background.run("it", threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await background.run("it", lambda: 1 // 0)


async def test_work_that_hangs_however_often_it_is_tried_leaves_threads_for_other_work() -> None:
    background, hanging = Background(), threading.Event()
    running = [asyncio.create_task(background.run("hangs", hanging.wait)) for _ in range(MOST_THREADS)]
    await asyncio.sleep(0)
    running[0].cancel()
    assert await background.run("other", lambda: "loaded") == "loaded"
    hanging.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [True] * (len(results) - 1)


async def test_however_many_things_hang_there_are_no_more_threads_than_allowed() -> None:
    background, hanging = Background(), threading.Event()
    running = [
        asyncio.create_task(background.run(f"version {number}", hanging.wait)) for number in range(2 * MOST_THREADS)
    ]
    await asyncio.sleep(0)
    assert sum(thread.name == "background" for thread in threading.enumerate()) <= MOST_THREADS
    hanging.set()
    assert await asyncio.gather(*running) == [True] * len(running)


class LyingStore(MemoryFileSystem):
    """Files of the memory store, of which something else comes than is said to be there."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    gives: ClassVar[Callable[[bytes], bytes]]
    asked: ClassVar[list[int | None]]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.asked.append(end)
        return type(self).gives(super().cat_file(path, **options))[start:end]


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda data: data[: len(data) // 2], "and the store gave"),
        (lambda _: b"", "and the store gave 0 of them"),
        (lambda data: data * 1000, "gives more than"),
        (lambda data: bytes(len(data)), "SHA-256"),
    ],
)
def test_a_store_that_gives_less_more_or_else_than_it_has_is_refused_and_not_read_on(
    gives: Callable[[bytes], bytes], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec, "filesystem", lambda scheme: LyingStore())
    monkeypatch.setattr(LyingStore, "gives", staticmethod(gives), raising=False)
    monkeypatch.setattr(LyingStore, "asked", [], raising=False)
    artifact, uri = with_canary(right=True), "memory://opening/a.safetensors"
    save(artifact, uri)
    record = version_record(artifact, name="default", where=ANYWHERE.locate(uri), now_ms=1)
    with pytest.raises(ArtifactError, match=said):
        open_version(record, "cpu", (), ANYWHERE)
    assert LyingStore.asked == [artifact.size + 1]
