"""A parse must not run finalizers, nor let other threads run: tests/support/sources.py says why."""

from __future__ import annotations

import ast
import gc
from typing import Any

import pytest


@pytest.fixture
def collected():
    """The collections that begin in a test, which are as many as there can be."""
    begun: list[str] = []

    def note(phase: str, _info: dict[str, Any]) -> None:
        begun.append(phase)

    usual = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1)
    yield begun
    gc.set_threshold(*usual)
    gc.callbacks.remove(note)


def test_no_garbage_is_collected_while_a_source_is_parsed(collected):
    parse, source = ast.parse, "a = [b, c]\n" * 100
    collected.clear()
    tree = parse(source)
    seen = len(collected)
    assert seen <= 2  # before and behind the parse itself
    assert len(tree.body) == 100
    assert gc.isenabled()


def test_a_parse_that_fails_leaves_the_collection_on():
    with pytest.raises(SyntaxError):
        ast.parse("a b")
    assert gc.isenabled()
