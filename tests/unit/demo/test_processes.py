import asyncio
import json
from pathlib import Path

import pytest

from headrace.demo.setup import all_answer, beside, keep
from headrace.process.children import ProgramError


async def endless(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def fails() -> None:
    raise ProgramError("the workers are gone")


async def test_what_runs_beside_a_block_ends_with_it() -> None:
    ended: list[str] = []
    async with beside(endless(ended, "a"), endless(ended, "b")):
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["a", "b"]


async def test_what_fails_beside_a_block_ends_it_and_is_raised_itself() -> None:
    ended: list[str] = []
    with pytest.raises(ProgramError, match="the workers are gone"):
        async with beside(endless(ended, "a"), fails()):
            await asyncio.Event().wait()
    assert ended == ["a"]


async def test_an_error_of_the_block_is_raised_itself() -> None:
    ended: list[str] = []

    async def block() -> None:
        async with beside(endless(ended, "a")):
            await asyncio.sleep(0)
            await fails()

    with pytest.raises(ProgramError, match="the workers are gone"):
        await block()
    assert ended == ["a"]


def assigned(*partitions: int) -> str:
    return json.dumps({"time": "2026-01-31T12:00:00.000Z", "event": "partitions.assigned", "partitions": partitions})


def resumed(*partitions: int) -> list[str]:
    return [json.dumps({"event": "partition.resumed", "partition": number}) for number in partitions]


SHARED = [assigned(0, 1), assigned(2, 3)]


@pytest.mark.parametrize(
    ("lines", "ready"),
    [
        pytest.param([], False, id="nothing was logged"),
        pytest.param([*SHARED, *resumed(0, 1, 2, 3)], True, id="both joined at once"),
        pytest.param([*SHARED, *resumed(0, 1, 2)], False, id="one partition is not resumed"),
        pytest.param([assigned(0, 1, 2, 3), *resumed(0, 1, 2, 3)], False, id="the second is not there"),
        pytest.param(
            [assigned(0, 1, 2, 3), *resumed(0, 1, 2, 3), assigned(2, 3), *resumed(2, 3)],
            False,
            id="the first was not told of the second yet",
        ),
        pytest.param(
            [assigned(0, 1, 2, 3), *resumed(0, 1, 2, 3), assigned(2, 3), assigned(0, 1), *resumed(2, 3)],
            False,
            id="what was resumed before a rebalance is not resumed",
        ),
        pytest.param(
            [assigned(0, 1, 2, 3), *resumed(0, 1, 2, 3), *SHARED, *resumed(2, 0, 3, 1)], True, id="one joined later"
        ),
        pytest.param([assigned(0, 1, 2, 3), assigned(), *resumed(0, 1, 2, 3)], False, id="one has nothing to do"),
        pytest.param(
            ["Traceback (most recent call last):", '{"event": "worker.st', *SHARED, *resumed(0, 1, 2, 3)],
            True,
            id="lines that are no events",
        ),
    ],
)
def test_the_workers_are_ready_when_every_partition_is_resumed_by_its_last_owner(lines: list[str], ready: bool) -> None:
    assert all_answer(lines, 2, 4) is ready


def test_a_kept_model_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model.safetensors"
    model.parent.mkdir()
    at = tmp_path / "cache" / "demo" / "model.safetensors"
    for content in (b"first", b"second"):
        model.write_bytes(content)
        keep(model, at)
        assert at.read_bytes() == content
    assert list(at.parent.iterdir()) == [at]
    assert model.is_file()
