"""The real `headrace worker --processes N`, watched by its log until every member answers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.demo.children import ChildEndedError, Service, child
from headrace.demo.setting import as_options

START_LIMIT_S = 120.0
POLL_S = 0.05


class _Event(msgspec.Struct, frozen=True):
    event: str
    partitions: tuple[int, ...] = ()
    partition: int = -1


class Workers(Service, frozen=True):
    """The running parent of the members, and the log of them all."""

    async def ready(self, members: int, partitions: int, clock: Clock) -> None:
        """Wait until all ``members`` answer. Raises ChildEndedError when that takes longer than START_LIMIT_S."""
        until = clock.monotonic() + START_LIMIT_S
        while not all_answer(self.log.read_bytes().splitlines(), members, partitions):
            if clock.monotonic() > until:
                raise ChildEndedError(
                    f"The workers were not ready in {START_LIMIT_S:g} s. The end of their log:\n{self.tail}"
                )
            await clock.sleep(POLL_S)


@asynccontextmanager
async def workers(
    settings: Settings, members: int, *, environ: Mapping[str, str], folder: Path
) -> AsyncIterator[Workers]:
    """Run ``members`` workers with ``settings`` (log.format has to be json) while the block runs."""
    log = folder / "workers.log"
    # The parent's own patience with its members is three times this limit.
    grace_s = 4 * settings.worker.drain_timeout
    command = [*as_options(settings), "worker", "--processes", str(members)]
    async with child(command, environ=environ, folder=folder, log=log, grace_s=grace_s) as process:
        yield Workers("`headrace worker`", process, log)


def all_answer(lines: Iterable[bytes], members: int, partitions: int) -> bool:
    """Whether, by their log, ``members`` workers share the ``partitions`` among them and have resumed each.

    At a rebalance every member is told its partitions anew, so the last assignments are those that hold.
    """
    decoder = msgspec.json.Decoder(_Event)
    held: deque[frozenset[int]] = deque(maxlen=members)
    resumed: set[int] = set()
    for line in lines:
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            continue  # the lines of a traceback, and one that is being written
        if event.event == "partitions.assigned":
            held.append(frozenset(event.partitions))
            resumed -= held[-1]
        elif event.event == "partition.resumed":
            resumed.add(event.partition)
    shared_out = len(held) == members and all(held) and sum(map(len, held)) == partitions
    return shared_out and resumed == frozenset[int]().union(*held) == set(range(partitions))
