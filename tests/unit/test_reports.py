"""Reading a failure must not run finalizers: tests/conftest.py says why."""

from __future__ import annotations

import gc

import pytest


def test_no_garbage_is_collected_while_a_failure_is_read(request: pytest.FixtureRequest) -> None:
    collecting = []

    class ObservedError(Exception):
        def __str__(self) -> str:
            collecting.append(gc.isenabled())
            return "observed"

    def fail() -> None:
        raise ObservedError

    call = pytest.CallInfo.from_call(fail, "call")
    report = request.node.ihook.pytest_runtest_makereport(item=request.node, call=call)
    assert report.failed
    assert collecting
    assert not any(collecting)
    assert gc.isenabled()
