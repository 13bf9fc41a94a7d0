"""A drain: all requests are published before the contender starts, and what is measured is how fast it answers them.

Nobody reads meanwhile. Answers are read when all are there, or none comes any more.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from headrace_load.measure.answers import append_clock, reading, rows, tail
from headrace_load.measure.gathered import Gathered, to_be_answered
from headrace_load.measure.producers import producing
from headrace_load.measure.resources import Sampler
from headrace_load.measure.setting import TICK_S, Setting, given_up, quiet, settled
from headrace_load.measure.stages import scrape
from headrace_load.workload.spec import WorkloadError

FIRST_ANSWER_S = 120.0
"""Longest wait for the first answer: the contender has to start."""


async def drained(setting: Setting) -> Gathered:
    """Run it. Raises WorkloadError without a contender to start, and as an open-loop run does."""
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
        expected = int(to_be_answered(sent, setting.answers).sum())
        sampler = Sampler({"broker": system.broker_pids})
        sampler.begin()
        running = await stack.enter_async_context(setting.contender())
        sampler.watch("workers", running.pids)

        def tick(answered: int) -> None:
            sampler.sample()
            setting.show("measuring", begun_us, producers, answered)

        complete = await settled(end.records, min(expected, 1), max(FIRST_ANSWER_S, workload.settle), tick)
        sampler.sample()
        start_s = sampler.cpu_s("workers")
        if complete:
            complete = await settled(end.records, expected, workload.settle, tick)
        sampler.sample()
        metrics = await scrape(running.metrics)
        ends = await quiet(end)
        setting.show("reading", begun_us, producers, None)
        answered, read = await rows(
            await stack.enter_async_context(reading(system, setting.answers, folder, end.begins, ends)), folder
        )
        told = producers.told()
        return Gathered(
            sent=sent,
            answered=answered,
            answers=setting.answers,
            records=read.records,
            begin_us=int(answered["appended_us"].min()) if len(answered) else begun_us,
            complete=told.complete,
            append_clock=await append_clock(system, ends, end.begins),
            metrics=metrics,
            used=sampler.used(len(answered), {"workers": start_s}),
            samples=sampler.samples,
            notes=tuple(filter(None, (None if complete else given_up(workload), told.error, read.error))),
        )
