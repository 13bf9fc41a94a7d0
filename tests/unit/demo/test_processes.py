import asyncio
import json
import os
from pathlib import Path

import pytest

from headrace.demo.setup import ChildEndedError, all_answer, beside, keep, run_to_its_end


async def endless(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def fails() -> None:
    raise ChildEndedError("the workers are gone")


async def test_what_runs_beside_a_block_ends_with_it() -> None:
    ended: list[str] = []
    async with beside(endless(ended, "a"), endless(ended, "b")):
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["a", "b"]


async def test_what_fails_beside_a_block_ends_it_and_is_raised_itself() -> None:
    ended: list[str] = []
    with pytest.raises(ChildEndedError, match="the workers are gone"):
        async with beside(endless(ended, "a"), fails()):
            await asyncio.Event().wait()
    assert ended == ["a"]


async def test_an_error_of_the_block_is_raised_itself() -> None:
    ended: list[str] = []

    async def block() -> None:
        async with beside(endless(ended, "a")):
            await asyncio.sleep(0)
            await fails()

    with pytest.raises(ChildEndedError, match="the workers are gone"):
        await block()
    assert ended == ["a"]


async def test_a_command_that_fails_is_told_with_the_end_of_what_it_printed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ChildEndedError, match=r"`headrace no-such` ended with exit code 2; .*\n(.|\n)*No such command"):
        await run_to_its_end(
            "`headrace no-such`", ["no-such"], environ=os.environ, folder=tmp_path, log=log, grace_s=5.0
        )


def assigned(*partitions: int) -> bytes:
    return json.dumps(
        {"time": "2026-01-31T12:00:00.000Z", "event": "partitions.assigned", "partitions": partitions}
    ).encode()


def resumed(*partitions: int) -> list[bytes]:
    return [json.dumps({"event": "partition.resumed", "partition": number}).encode() for number in partitions]


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
            [b"Traceback (most recent call last):", b'{"event": "worker.st', *SHARED, *resumed(0, 1, 2, 3)],
            True,
            id="lines that are no events",
        ),
    ],
)
def test_the_workers_are_ready_when_every_partition_is_resumed_by_its_last_owner(
    lines: list[bytes], ready: bool
) -> None:
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
