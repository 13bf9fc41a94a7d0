"""Limits of waiting: they follow the machine, and each says what was waited for."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

from headrace_load import processes
from headrace_load.processes import until, within
from tests.support.sources import parsed
from tests.support.waiting import until as until_of_a_test

ROOT = Path(__file__).parents[3]
REAL_CLOCK = ("load", "tests/contract", "tests/end_to_end")
"""Where nothing turns the clock."""
BARE = {"timeout", "wait_for"}


@pytest.fixture
def idle(monkeypatch) -> None:
    monkeypatch.setattr(processes, "slowness", lambda: 1.0)


async def test_a_limit_that_passes_says_what_was_waited_for(idle):
    with pytest.raises(TimeoutError, match=r"^the second coming did not happen within 0 s$"):
        async with within(0.01, "the second coming"):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError, match=r"^a frame of w0 did not happen"):
        await until(lambda: None, "a frame of w0", 0.01)


async def test_a_test_that_waits_in_vain_shows_its_condition(idle):
    never = None
    with pytest.raises(TimeoutError, match="never is not None"):
        await until_of_a_test(lambda: never is not None, 0.01)


async def test_a_time_out_inside_the_block_keeps_its_own_words(idle):
    with pytest.raises(TimeoutError, match=r"^the broker is asleep$"):
        async with within(60, "the end"):
            raise TimeoutError("the broker is asleep")


async def test_a_check_ends_waiting_for_what_never_comes(idle):
    def gone() -> None:
        raise RuntimeError("it ended with 3")

    with pytest.raises(RuntimeError, match="ended with 3"):
        await until(lambda: None, "its answer", 60, gone)


async def test_a_busy_machine_has_longer(monkeypatch):
    monkeypatch.setattr(processes, "slowness", lambda: 1000.0)
    async with within(0.001, "a short sleep"):
        await asyncio.sleep(0.05)


def test_slowness_is_the_time_that_passes_for_each_second_of_work(monkeypatch):
    processes.calibrated.cache_clear()
    passed = iter(range(0, 1000, 3))
    worked = iter(range(1000))
    monkeypatch.setattr(processes.time, "monotonic", lambda: next(passed))
    monkeypatch.setattr(processes.time, "thread_time", lambda: next(worked))
    monkeypatch.setattr(processes.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    try:
        assert processes.slowness() == 3.0
    finally:
        processes.calibrated.cache_clear()


def test_load_that_begins_later_counts(monkeypatch):
    monkeypatch.setattr(processes, "calibrated", lambda: 1.0)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(processes.os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    assert processes.slowness() == 4.0
    monkeypatch.setattr(processes.os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    assert processes.slowness() == 1.0


def handled(tree: ast.AST) -> set[ast.AST]:
    """Nodes whose TimeoutError is caught where it is raised."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        catches = isinstance(node, ast.Try) and any("TimeoutError" in ast.dump(h.type) for h in node.handlers if h.type)
        ignores = isinstance(node, ast.With) and "TimeoutError" in ast.dump(node.items[0].context_expr)
        if catches or ignores:
            inside.update(one for statement in node.body for one in ast.walk(statement))
    return inside


def test_no_time_out_on_a_real_clock_is_without_words():
    bare = []
    for file in (file for folder in REAL_CLOCK for file in (ROOT / folder).rglob("*.py")):
        if file == Path(processes.__file__) or "peers" in file.parts:
            continue
        tree = parsed(file.read_text())
        known = handled(tree)
        bare += [
            f"{file.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in BARE
            and ast.unparse(node.func.value) == "asyncio"
            and node not in known
        ]
    assert not bare, f"use headrace_load.processes.within, which says what was waited for: {bare}"
