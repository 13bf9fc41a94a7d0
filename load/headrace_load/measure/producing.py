"""One producer process: it sends each request when it is due, whatever became of those before.

$ python -m headrace_load.measure.producing JOB.json
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from headrace.client import connect
from headrace_load.measure.ahead import Ahead
from headrace_load.measure.job import Begin, Parent, ProducerJob, Ready, Stop, Told, serve
from headrace_load.measure.lanes import Lanes
from headrace_load.workload.requests import requests
from headrace_load.workload.spec import Backlog

PAUSE_S = 0.001
"""Between two sends: what comes due in it goes together."""
MOST_AT_ONCE = 2000
OVERTIME_S = 1.0
"""Behind the end of its run a producer that is late gives up what it has not sent: it could not keep up."""
SWITCH_S = 0.0005
TELL_S = 1.0


async def main(job: ProducerJob, parent: Parent) -> None:
    """Prepare, wait for the beginning, produce, write the rows down."""
    # The thread that makes requests must let the one that sends them go on at once.
    sys.setswitchinterval(SWITCH_S)
    ahead = Ahead(requests(job.workload, job.producer, _texts(job), ids=job.ids))
    await asyncio.to_thread(ahead.start)
    system = job.system
    kafka = system.kafka_settings()
    async with connect(kafka=kafka, requests=system.requests, results=system.results) as client:
        partitions = len(await client.request_partitions())
        if not partitions:
            raise SystemExit(f"There is no topic {system.requests} to publish to. `headrace topics apply` makes it.")
        gc.collect()
        gc.freeze()
        parent.say(Ready())
        begin = await parent.order()
        if not isinstance(begin, Begin):
            return
        producing = Producing(job, Lanes(client, partitions, begin.at_us), ahead, begin.at_us)
        with _rows(job) as file:
            if await _produced(producing, parent, file):
                producing.flush(file)
                parent.say(producing.told(None))


async def _produced(producing: Producing, parent: Parent, file: BinaryIO) -> bool:
    """Run to the end; False when the parent has ended."""
    telling = asyncio.create_task(producing.tell(parent, file))
    order = asyncio.create_task(parent.order())
    run = asyncio.create_task(producing.run())
    try:
        await asyncio.wait((run, order, telling), return_when=asyncio.FIRST_COMPLETED)
        if order.done() and order.exception() is None and isinstance(order.result(), Stop):
            producing.send_no_more()
            await asyncio.wait((run, telling), return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            return False
    finally:
        for task in (telling, order, run):
            task.cancel()
        await asyncio.wait((run,))
        await producing.lanes.stop()
    run.result()
    return True


def _rows(job: ProducerJob) -> BinaryIO:
    return Path(job.rows).open("wb")


def _texts(job: ProducerJob) -> list[str]:
    return msgspec.json.decode(Path(job.texts).read_bytes(), type=list[str])


class Producing:
    """The open loop."""

    def __init__(self, job: ProducerJob, lanes: Lanes, ahead: Ahead, begin_us: int) -> None:
        workload = job.workload
        self._ahead = ahead
        self._begin_us = begin_us
        self._patience_s = workload.settle
        backlog = isinstance(workload.arrivals, Backlog)
        self._end_s = float("inf") if backlog else workload.warm_up + workload.seconds + OVERTIME_S
        self._complete = False
        self.lanes = lanes

    async def run(self) -> None:
        """Send all, then wait for the last outcomes, ``settle`` seconds without any at most."""
        try:
            await self._send()
            while not self.lanes.empty and await self._outcome(self._patience_s):
                pass
        finally:
            self._ahead.stop()

    def send_no_more(self) -> None:
        """What is not sent yet never is; the outcomes of what was are still waited for."""
        self._end_s = 0.0

    async def tell(self, parent: Parent, file: BinaryIO) -> None:
        """Say about once a second how far it is."""
        while True:
            await asyncio.sleep(TELL_S)
            parent.say(self.told(self.flush(file)))

    def flush(self, file: BinaryIO) -> float | None:
        """Write the rows since the last time; returns the 99th percentile of their lateness in microseconds."""
        rows = self.lanes.rows.flush(file)
        return float(np.percentile(rows["sent_us"] - rows["due_us"], 99)) if len(rows) else None

    def told(self, late_p99_us: float | None) -> Told:
        lanes = self.lanes
        return Told(
            due=lanes.sent + self._ahead.waiting(self._now_s()),
            sent=lanes.sent,
            acked=len(lanes.rows) - lanes.failed,
            failed=lanes.failed,
            late_p99_us=late_p99_us,
            complete=self._complete,
            error=lanes.error,
        )

    def _now_s(self) -> float:
        return (time.time_ns() // 1000 - self._begin_us) / 1e6

    async def _send(self) -> None:
        while not self._ahead.exhausted:
            now_s = self._now_s()
            if now_s > self._end_s:
                return
            if not self.lanes.room:
                if not await self._outcome(self._patience_s):
                    return
                continue
            due = self._ahead.take(now_s, MOST_AT_ONCE)
            if due:
                self.lanes.send(due, time.time_ns() // 1000)
            next_s = self._ahead.next_due_s()
            await asyncio.sleep(PAUSE_S if next_s is None else max(PAUSE_S, next_s - self._now_s()))
        self._complete = True

    async def _outcome(self, limit_s: float) -> bool:
        """Wait for a batch's outcome; False when none comes."""
        self.lanes.settled.clear()
        try:
            await asyncio.wait_for(self.lanes.settled.wait(), limit_s)
        except TimeoutError:
            return False
        return True


if __name__ == "__main__":
    serve(ProducerJob, main)
