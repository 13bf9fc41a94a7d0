"""Pruning on the twin: what stays, in what order the rest goes, and what a run that was cut off leaves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.interface import TopicSpec
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter
from headrace.registry.versions import Removal, in_use, prunable, prune
from headrace_schemas.records import ModelAlias, ModelVersion, Verdict
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned
from tests.support.versions import version_of

NAMES = [f"v{number}" for number in range(5)]
VERSIONS = [version_of(name, at=number, sha256=name) for number, name in enumerate(NAMES)]


def alias(version: str, previous: str | None = None, name: str = "champion") -> ModelAlias:
    return ModelAlias(name="m", alias=name, version=version, moved_at_ms=0, previous=previous)


def story(play: Callable[[ModelsLog, ModelsWriter], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run ``play`` with a topic that holds VERSIONS and a champion at the fourth, before the third."""

    def test() -> None:
        async def main() -> None:
            cluster = MemoryCluster(TurnedClock())
            cluster.create_topic(TopicSpec(name="models", partitions=1))
            log, writer = ModelsLog(cluster, "models"), ModelsWriter(cluster.producer(), "models")
            await writer.publish([*VERSIONS, alias("v3", "v2")])
            await log.start()
            await play(log, writer)
            await log.stop()
            await cluster.close()

        run_turned(main())

    test.__name__ = play.__name__
    return test


@story
async def test_the_oldest_go_first_files_before_record(log: ModelsLog, writer: ModelsWriter) -> None:
    await writer.publish(
        [Verdict(name="m", version="v0", promoted=False, reason="", decided_at_ms=0)],
    )
    steps = []

    async def remove(version: ModelVersion) -> Removal:
        await log.refresh()
        steps.append((version.version, len(log.versions)))
        return Removal(freed=1000)

    freed = [(version.version, of.freed) async for version, of in prune(log, writer, "m", 1, remove=remove)]
    assert freed == [("v0", 1000), ("v1", 1000)]
    assert steps == [("v0", 5), ("v1", 4)]
    await log.refresh()
    assert [version for _, version in log.versions] == ["v2", "v3", "v4"]
    assert log.verdicts == {}


@story
async def test_a_version_that_an_alias_was_moved_to_meanwhile_stays(log: ModelsLog, writer: ModelsWriter) -> None:
    async def remove(version: ModelVersion) -> Removal:
        await writer.publish([alias("v1", name="mine")])
        return Removal()

    assert [version.version async for version, _ in prune(log, writer, "m", 1, remove=remove)] == ["v0"]
    await log.refresh()
    assert ("m", "v1") in log.versions


@story
async def test_what_the_store_refused_is_removed_by_the_next_run(log: ModelsLog, writer: ModelsWriter) -> None:
    async def refuse(version: ModelVersion) -> Removal:
        raise OSError("the store is away")

    with pytest.raises(OSError, match="away"):
        async for _ in prune(log, writer, "m", 1, remove=refuse):
            pass
    await log.refresh()
    assert len(log.versions) == 5

    async def gone(version: ModelVersion) -> Removal:
        return Removal(freed=0 if version.version == "v0" else 1000)

    freed = [(version.version, of.freed) async for version, of in prune(log, writer, "m", 1, remove=gone)]
    assert freed == [("v0", 0), ("v1", 1000)]


@story
async def test_a_file_that_another_version_needs_stays(log: ModelsLog, writer: ModelsWriter) -> None:
    # By another spelling of its URI it is the same file, and so are its bytes.
    await writer.publish(
        [version_of("v0", uri="memory:///v3", sha256="v3"), version_of("v1", at=1, uri="memory://v3", sha256="v1")]
    )
    await log.refresh()
    removed = []

    async def remove(version: ModelVersion) -> Removal:
        removed.append(version.version)
        return Removal(freed=1000)

    said = [(version.version, of) async for version, of in prune(log, writer, "m", 1, remove=remove)]
    assert said == [(name, Removal(kept="another version has the same artifact")) for name in ("v0", "v1")]
    assert removed == []


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.sampled_from(NAMES)), max_size=3),
    st.permutations(VERSIONS),
    st.integers(1, 6),
)
def test_what_may_go_is_old_and_unused(pointers: list[tuple[str, str | None]], order: list[Any], keep: int) -> None:
    log = ModelsLog(MemoryCluster(TurnedClock()), "models")
    log.versions = {("m", version.version): version for version in order}
    log.versions["other", "v0"] = version_of("v0")
    log.aliases = {("m", str(number)): alias(*pointer) for number, pointer in enumerate(pointers)}
    gone = prunable(log, "m", keep)
    assert [version.version for version in gone] == sorted(version.version for version in gone)
    named = {version for pointer in pointers for version in pointer}
    assert {version.version for version in gone} == {name for name in NAMES[: max(0, 5 - keep)] if name not in named}
    assert all(in_use(log, version) is (version.version in named) for version in VERSIONS)
