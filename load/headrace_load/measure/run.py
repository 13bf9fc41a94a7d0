"""One run of one workload against one contender.

In a drain all requests are published before the contender starts, and answers are read when all are there; it measures
the rate. In an open-loop run requests are sent at their times while the contender answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace.security.private_folder import temporary_folder
from headrace_load.contender import Contender
from headrace_load.measure.audit import Answers, expected_answers
from headrace_load.measure.evaluation import Measurements, Scraped, evaluate, grown, scrape
from headrace_load.measure.machine import Sampler
from headrace_load.measure.processes import (
    MeasuringProcess,
    Producers,
    ReaderProgress,
    Stop,
    Tail,
    append_clock,
    producing,
    reading,
    rows,
    tail,
)
from headrace_load.result import Progress, Result
from headrace_load.target import Running, Start, System
from headrace_load.workload.spec import Backlog, TopicTexts, Workload, WorkloadError
from headrace_load.workload.texts import load_texts, topic_texts

TICK_S = 1.0
POLL_S = 0.1
QUIET_S = 0.5
QUIET_MOST_S = 5.0


class RunSetup(Struct, frozen=True, kw_only=True):
    """``start`` is None if workers run already; ``texts`` is a file with a JSON list.

    ``folder`` is for temporary files of the run.
    """

    workload: Workload
    system: System
    answers: Answers
    start: Start | None
    folder: Path
    texts: Path
    progress: Callable[[Progress], None]

    @asynccontextmanager
    async def contender(self) -> AsyncIterator[Running]:
        """Keep the contender running while the block runs."""
        if self.start is None:
            yield Running(pids=self.system.worker_pids, metrics=self.system.metrics)
        else:
            async with self.start() as running:
                yield running

    def show(self, phase: str, begun_us: int, producers: Producers, answered: int | None) -> None:
        """Show how far the run is."""
        workload, told = self.workload, producers.told()
        backlog = workload.arrivals.requests if isinstance(workload.arrivals, Backlog) else None
        self.progress(
            Progress(
                phase=phase,
                elapsed_s=max(0.0, time.time() - begun_us / 1e6),
                whole_s=workload.warm_up + workload.seconds if backlog is None else None,
                requests=backlog,
                due=told.due,
                sent=told.sent,
                acked=told.acked,
                answered=answered,
                late_p99_ms=None if told.late_p99_us is None else told.late_p99_us / 1000,
            )
        )


async def all_answered(
    count: Callable[[], Awaitable[int]], expected: int, patience_s: float, tick: Callable[[int], None]
) -> bool:
    """Wait until ``count`` returns ``expected``; False if it has not grown for ``patience_s`` seconds.

    ``tick`` is called about once a second.
    """
    best, moved, ticked = -1, time.monotonic(), 0.0
    while (now := await count()) < expected:
        if now > best:
            best, moved = now, time.monotonic()
        elif time.monotonic() - moved > patience_s:
            return False
        if time.monotonic() - ticked >= TICK_S:
            ticked = time.monotonic()
            tick(now)
        await asyncio.sleep(POLL_S)
    return True


async def final_ends(end: Tail) -> dict[int, int]:
    """Wait, with a limit, until no more answers come, and return where the results end.

    The number of answers alone does not tell, because some may be repeats, or answers to other requests.
    """
    ends, until = await end.ends(), time.monotonic() + QUIET_MOST_S
    while time.monotonic() < until:
        await asyncio.sleep(QUIET_S)
        before, ends = ends, await end.ends()
        if before == ends:
            break
    return ends


FIRST_ANSWER_S = 120.0
"""Longest wait for the first answer, because the contender has to start."""


async def drain_backlog(setting: RunSetup) -> Measurements:
    """Run a drain. Raises WorkloadError without a contender to start, and errors of an open-loop run."""
    if setting.start is None:
        raise WorkloadError("a backlog is published before what answers it starts, so it needs a contender to start")
    workload, system, folder = setting.workload, setting.system, setting.folder
    async with AsyncExitStack() as stack:
        end = await stack.enter_async_context(tail(system))
        producers = await stack.enter_async_context(
            producing(workload, system, folder, texts=setting.texts, ids=setting.answers == "id")
        )
        begun_us = producers.begin()
        while not producers.ended:
            producers.check()
            setting.show("publishing", begun_us, producers, None)
            await asyncio.sleep(TICK_S)
        sent = await producers.rows()
        expected = int(expected_answers(sent, setting.answers).sum())
        sampler = Sampler({"broker": system.broker_pids})
        sampler.begin()
        started_us = time.time_ns() // 1000
        running = await stack.enter_async_context(setting.contender())
        sampler.watch("workers", running.pids)

        def tick(answered: int) -> None:
            running.check()
            sampler.sample()
            setting.show("measuring", begun_us, producers, answered)

        complete = await all_answered(end.records, min(expected, 1), max(FIRST_ANSWER_S, workload.settle), tick)
        sampler.sample()
        start_s = sampler.cpu_s("workers")
        if complete:
            complete = await all_answered(end.records, expected, workload.settle, tick)
        sampler.sample()
        metrics = await scrape(running.metrics)
        setting.show("reading", begun_us, producers, None)
        return await _measured(
            setting,
            end,
            producers,
            sampler,
            reader=None,
            sent=sent,
            complete=complete,
            begin_us=None,
            metrics=metrics,
            started_us=started_us,
            start_s={"workers": start_s},
        )


async def stream_load(setting: RunSetup) -> Measurements:
    """Run an open loop. Raises MeasuringError, a KafkaError, an OSError of the metrics, errors of the contender's
    start, and ProgramError when the contender ends before the run does.
    """
    workload, system, folder = setting.workload, setting.system, setting.folder
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(setting.contender())
        end = await stack.enter_async_context(tail(system))
        live = workload.read == "live"
        reader = (
            await stack.enter_async_context(reading(system, setting.answers, folder, end.begins, None))
            if live
            else None
        )
        producers = await stack.enter_async_context(
            producing(workload, system, folder, texts=setting.texts, ids=setting.answers == "id")
        )

        async def answered_so_far() -> int:
            if reader is None:
                return await end.records()
            reader.check()
            return reader.last.answers if isinstance(reader.last, ReaderProgress) else 0

        async def show(phase: str) -> None:
            producers.check()
            running.check()
            setting.show(phase, begun_us, producers, await answered_so_far() if live else None)

        sampler = Sampler({"workers": running.pids, "broker": system.broker_pids})
        begun_us = producers.begin()
        measured_us = begun_us + int(workload.warm_up * 1e6)
        while (left_s := measured_us / 1e6 - time.time()) > 0 and not producers.ended:
            await show("warm-up")
            await asyncio.sleep(min(TICK_S, left_s))
        sampler.begin()
        before = await scrape(running.metrics)
        while not producers.ended:
            await show("measuring")
            await asyncio.sleep(TICK_S)
            sampler.sample()
        sent = await producers.rows()

        def tick(answered: int) -> None:
            running.check()
            sampler.sample()
            setting.show("settling", begun_us, producers, answered)

        expected = int(expected_answers(sent, setting.answers).sum())
        # A fast contender may have answered all before the first tick.
        await show("settling")
        complete = await all_answered(answered_so_far, expected, workload.settle, tick)
        sampler.sample()
        metrics = grown(before, await scrape(running.metrics))
        if reader is None:
            await show("reading")
        return await _measured(
            setting,
            end,
            producers,
            sampler,
            reader=reader,
            sent=sent,
            complete=complete,
            begin_us=measured_us,
            metrics=metrics,
        )


async def _measured(
    setting: RunSetup,
    end: Tail,
    producers: Producers,
    sampler: Sampler,
    *,
    reader: MeasuringProcess | None,
    sent: NDArray[np.void],
    complete: bool,
    begin_us: int | None,
    metrics: Scraped,
    started_us: int | None = None,
    start_s: Mapping[str, float] | None = None,
) -> Measurements:
    """The measurements after the last answer. Without a live ``reader`` the answers are read now.

    ``begin_us`` is the beginning of the measured part; None for the first answer's append.
    """
    ends, folder = await final_ends(end), setting.folder
    if reader is None:
        async with reading(setting.system, setting.answers, folder, end.begins, ends) as later:
            answered, read = await rows(later, folder)
    else:
        reader.order(Stop())
        answered, read = await rows(reader, folder)
    told = producers.told()
    if begin_us is None:
        begin_us = int(answered["appended_us"].min()) if len(answered) else 0
    unanswered = f"Requests were left without an answer when none had come for {setting.workload.settle:g} s."
    return Measurements(
        sent=sent,
        answered=answered,
        answers=setting.answers,
        records=read.records,
        begin_us=begin_us,
        complete=told.complete,
        append_clock=await append_clock(setting.system, ends, end.begins),
        metrics=metrics,
        used=sampler.used(int((answered["appended_us"] >= begin_us).sum()), start_s),
        samples=sampler.samples,
        notes=tuple(filter(None, (None if complete else unanswered, told.error, read.error))),
        started_us=started_us,
    )


async def run(
    workload: Workload,
    contender: Contender | None,
    system: System,
    *,
    start: Start | None,
    name: str,
    progress: Callable[[Progress], None],
) -> Result:
    """Run once on ``system``, whose topics exist. ``start`` starts the contender; None if workers answer already.

    Raises WorkloadError, KafkaSettingsError, a KafkaError, MeasuringError, an OSError of the metrics, and errors of
    ``start``. It never leaves a process of its own behind.
    """
    # These files hold texts and perhaps a password, so they are for their owner alone, and removed after the run.
    with temporary_folder("headrace-load-") as folder:
        texts = folder / "texts.json"
        texts.write_bytes(msgspec.json.encode(await _texts(workload, system)))
        setting = RunSetup(
            workload=workload,
            system=system,
            answers=contender.program.answers if contender and contender.program else "log",
            start=start,
            folder=folder,
            texts=texts,
            progress=progress,
        )
        drain = isinstance(workload.arrivals, Backlog)
        return evaluate(workload, contender, name, await (drain_backlog(setting) if drain else stream_load(setting)))


async def _texts(workload: Workload, system: System) -> list[str]:
    if not isinstance(workload.texts, TopicTexts):
        return load_texts(workload.texts, workload.seed)
    async with system.consumer() as consumer:
        return await topic_texts(consumer, workload.texts)
