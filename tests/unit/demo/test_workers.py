import json

import pytest

from headrace.demo.workers import all_answer


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
