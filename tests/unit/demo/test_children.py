import asyncio
import os
from pathlib import Path

import pytest

from headrace.demo.children import ChildEndedError, beside, run_to_its_end


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
