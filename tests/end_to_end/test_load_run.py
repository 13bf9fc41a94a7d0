"""The harness is honest: it sees what a stall does to those who wait, and says when it was itself the bottleneck."""

from __future__ import annotations

import itertools
import sys
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest

from headrace.process.children import ProgramError, child
from headrace_load.contender import Contender, Program, starter
from headrace_load.measure.audit import join
from headrace_load.measure.evaluation import evaluate
from headrace_load.measure.run import RunSetup, run, stream_load
from headrace_load.processes import over_ours
from headrace_load.target import Running, make_topics, prefixed
from headrace_load.workload.spec import Backlog, Constant, MadeTexts, Workload
from tests.support.waiting import until

pytestmark = pytest.mark.apache

PARTITIONS = 4
TEXTS = MadeTexts(words=1000, distinct=100, bytes=40)
numbers = itertools.count()


class Echo:
    """Topics of a test's own, and the program of tests/support/stalling_echo.py on them."""

    def __init__(self, bootstrap, folder, *, stall_s: float) -> None:
        self.system = prefixed(bootstrap, f"load-{next(numbers)}-")
        command = (sys.executable, "-m", "tests.support.stalling_echo")
        stalls = {"EVERY_S": "10", "STALL_S": str(stall_s), "PARTITIONS": str(PARTITIONS)}
        self.contender = Contender(name="echo", program=Program(command=command, environment=stalls))
        self._log = folder / "echo.log"

    @asynccontextmanager
    async def start(self):
        system, program = self.system, self.contender.program
        given = {"BOOTSTRAP": system.bootstrap, "REQUESTS": system.requests, "RESULTS": system.results}
        async with child(program.command, log=self._log, environ=over_ours({**given, **program.environment})) as echo:
            await until(lambda: "ready" in self._log.read_text())
            yield Running(pids=(echo.pid,))


@pytest.mark.slow  # it waits for two stalls of a program of its own
async def test_a_stall_of_one_second_in_ten_is_in_the_percentiles_and_a_closed_loop_would_hide_it(
    apache_bootstrap, tmp_path
):
    echo = Echo(apache_bootstrap, tmp_path, stall_s=1.0)
    await make_topics(echo.system, PARTITIONS)
    texts = tmp_path / "texts.json"
    texts.write_bytes(msgspec.json.encode(["one text", "another text"]))
    workload = Workload(arrivals=Constant(rate=100), texts=TEXTS, seconds=20, warm_up=0.5)
    found = await stream_load(
        RunSetup(
            workload=workload,
            system=echo.system,
            answers="id",
            start=echo.start,
            folder=tmp_path,
            texts=texts,
            progress=lambda _: None,
        )
    )
    result = evaluate(workload, echo.contender, "stalls", found)
    assert result.audit.kept
    assert result.published == result.answered == 2000
    for seen in (result.to_append, result.to_reader):
        assert seen.p99 >= 500
        assert seen.max >= 900
    assert max(second.max for second in result.timeline if second.max is not None) >= 900
    assert closed_loop_p99_ms(found) < 500


def closed_loop_p99_ms(found) -> float:
    """What somebody would measure who sends, waits for the answer, and only then sends the next."""
    arrived_us = found.answered["arrived_us"][join(found.sent, found.answered, "id")]
    waits, free_us = [], 0
    for sent_us, back_us in sorted(zip(found.sent["sent_us"].tolist(), arrived_us.tolist(), strict=True)):
        if sent_us >= free_us:
            waits.append(back_us - sent_us)
            free_us = back_us
    return float(np.percentile(waits, 99)) / 1000


async def test_producers_that_cannot_keep_up_get_no_verdict(apache_bootstrap, tmp_path):
    echo = Echo(apache_bootstrap, tmp_path, stall_s=0.0)
    await make_topics(echo.system, PARTITIONS)
    told = []
    result = await run(
        Workload(arrivals=Constant(rate=1_000_000), texts=TEXTS, seconds=1, warm_up=0, read="after"),
        echo.contender,
        echo.system,
        start=echo.start,
        name="too much",
        progress=told.append,
    )
    assert result.audit.kept
    assert 0 < result.answered == result.published < 1_000_000
    assert result.refused.startswith("the producers were late: ")
    assert "they could not send all that was due" in result.refused
    assert result.lateness.late > 0.01
    assert result.used["workers"].cpu_s > 0
    assert {"settling", "reading"} <= {progress.phase for progress in told}


@pytest.mark.parametrize("arrivals", [Backlog(requests=10), Constant(rate=10)], ids=["drain", "stream"])
async def test_a_contender_that_ends_by_itself_ends_the_run_with_its_log(apache_bootstrap, tmp_path, arrivals):
    system = prefixed(apache_bootstrap, f"load-{next(numbers)}-")
    await make_topics(system, PARTITIONS)
    command = (sys.executable, "-c", "raise SystemExit('topics.workers: no such setting')")
    contender = Contender(name="ends", program=Program(command=command))
    workload = Workload(arrivals=arrivals, texts=TEXTS, seconds=60, warm_up=0)
    with pytest.raises(ProgramError, match=r"ended by itself with exit code 1.*\n.*no such setting"):
        await run(
            workload,
            contender,
            system,
            start=starter(contender, system, group="ends", folder=tmp_path, wait=False),
            name="ends",
            progress=lambda _: None,
        )
