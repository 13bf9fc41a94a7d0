from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from headrace_load.measure import evaluation, run
from headrace_load.measure.machine import HARNESS, Sampler, machine
from headrace_load.measure.run import all_answered, final_ends

BUSY = "import sys, time\nwhile time.process_time() < 0.05: pass\nprint('done', flush=True)\nsys.stdin.read()"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run, "POLL_S", 0.001)
    monkeypatch.setattr(run, "QUIET_S", 0.001)


class Growing:
    """Counts, and ends of the results, one after the other, the last one for ever."""

    def __init__(self, *values):
        self.values = list(values)

    async def __call__(self):
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]

    async def ends(self):
        return {0: await self()}


async def test_the_last_answers_are_waited_for():
    told = []
    assert await all_answered(Growing(0, 5, 5, 10), 10, 60.0, told.append)
    assert told == [0]


async def test_nobody_waits_for_ever_for_answers_that_do_not_come():
    assert not await all_answered(Growing(0, 5, 9), 10, 0.02, lambda _: None)


async def test_the_results_end_where_nothing_comes_any_more():
    assert await final_ends(Growing(3, 4, 6, 6, 7)) == {0: 6}


def registry(ok):
    metrics = CollectorRegistry()
    counter = Counter("headrace_answers", "Answers.", ["status"], registry=metrics)
    counter.labels("ok").inc(ok)
    counter.labels("failed").inc(1)
    return generate_latest(metrics).decode()


async def test_the_metrics_of_several_workers_are_added(monkeypatch):
    pages = {"http://a/metrics": registry(3), "http://b/metrics": registry(4)}
    monkeypatch.setattr(evaluation, "_read", pages.__getitem__)
    found = await evaluation.scrape(list(pages))
    assert found["headrace_answers_total", "ok"] == 7
    assert found["headrace_answers_total", "failed"] == 2


async def test_an_address_without_metrics_is_named():
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:1/metrics gives no metrics"):
        await evaluation.scrape(["http://127.0.0.1:1/metrics"])
    with pytest.raises(OSError, match="file:///etc/passwd is no address of metrics"):
        await evaluation.scrape(["file:///etc/passwd"])


def test_what_a_process_used_counts_for_its_tree_also_when_it_has_ended():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()
        sampler = Sampler({})
        sampler.begin()
        sampler.watch("workers", (busy.pid,))
        sampler.sample()
        cpu_s = sampler.cpu_s("workers")
    sampler.sample()
    used = sampler.used(answers=50_000)
    assert cpu_s > 0
    assert used["workers"].cpu_s == cpu_s
    assert used["workers"].cpu_s_per_100k == 2 * cpu_s
    assert used["workers"].rss_mb_most > 1
    assert used[HARNESS].rss_mb > 10
    assert "workers" not in sampler.samples[-1][1]


def test_what_the_harness_started_is_not_its_own_use():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()
        apart, together = Sampler({"workers": (busy.pid,)}), Sampler({})
        for sampler in (apart, together):
            sampler.sample()
        assert apart.cpu_s("workers") > 0
        assert apart.samples[-1][1][HARNESS] < together.samples[-1][1][HARNESS]


def test_the_machine_is_described():
    found = machine()
    assert found.cpus >= 1
    assert found.memory_gb > 0
    assert {"headrace", "aiokafka"} <= found.versions.keys()
    assert os.uname().sysname in found.system
