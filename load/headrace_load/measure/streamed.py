"""An open-loop run: requests come at their times while the contender answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from headrace_load.measure.answers import append_clock, reading, rows, tail
from headrace_load.measure.gathered import Gathered, to_be_answered
from headrace_load.measure.job import Read, Stop
from headrace_load.measure.producers import producing
from headrace_load.measure.resources import Sampler
from headrace_load.measure.setting import TICK_S, Setting, given_up, quiet, settled
from headrace_load.measure.stages import grown, scrape


async def streamed(setting: Setting) -> Gathered:
    """Run it. Raises MeasuringError, a KafkaError, an OSError of the metrics, and what the contender's start raises."""
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
            return reader.last.answers if isinstance(reader.last, Read) else 0

        async def show(phase: str) -> None:
            producers.check()
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
            sampler.sample()
            setting.show("settling", begun_us, producers, answered)

        expected = int(to_be_answered(sent, setting.answers).sum())
        # A contender may have answered all before the first tick.
        await show("settling")
        complete = await settled(answered_so_far, expected, workload.settle, tick)
        sampler.sample()
        metrics = grown(before, await scrape(running.metrics))
        ends = await quiet(end)
        if reader is None:
            await show("reading")
            later = await stack.enter_async_context(reading(system, setting.answers, folder, end.begins, ends))
        else:
            reader.order(Stop())
            later = reader
        answered, read = await rows(later, folder)
        told = producers.told()
        return Gathered(
            sent=sent,
            answered=answered,
            answers=setting.answers,
            records=read.records,
            begin_us=measured_us,
            complete=told.complete,
            append_clock=await append_clock(system, ends, end.begins),
            metrics=metrics,
            used=sampler.used(int((answered["appended_us"] >= measured_us).sum())),
            samples=sampler.samples,
            notes=tuple(filter(None, (None if complete else given_up(workload), told.error, read.error))),
        )
