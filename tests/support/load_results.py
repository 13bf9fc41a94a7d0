"""Results of the load harness as runs give them, made from seeded figures: for tests of the report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from headrace_load.contender import Contender, Program, WorkerProgram
from headrace_load.measure.audit import Audit
from headrace_load.result import (
    Comparison,
    Difference,
    Latency,
    Lateness,
    Machine,
    Result,
    Second,
    Stage,
    Used,
)
from headrace_load.workload.spec import Backlog, MadeTexts, Poisson, Workload

MACHINE = Machine(
    cpus=2,
    processor="Some CPU",
    memory_gb=23.4,
    system="Linux 6.18",
    python="3.11.7",
    commit="1cbe5a0+",
    versions={"headrace": "0.1.0", "aiokafka": "0.14.0", "broker": "Apache Kafka 4.3.1"},
)
SHARES = {"producing": 0.2, "kafka": 0.3, "gathering": 0.06, "model": 0.09, "publishing": 0.25, "reading": 0.08}


def latency_of(microseconds: NDArray[np.int64]) -> Latency:
    """What a run says of these latencies."""
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for value in microseconds.tolist():
        histogram.record_value(value)
    milliseconds = microseconds / 1000
    p50, p90, p99, p999 = np.percentile(milliseconds, [50, 90, 99, 99.9], method="inverted_cdf").tolist()
    return Latency(
        count=len(milliseconds),
        mean=float(milliseconds.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=float(milliseconds.max()),
        histogram=histogram.encode().decode(),
    )


def latencies(count: int, middle_ms: float, seed: int) -> NDArray[np.int64]:
    """``count`` latencies in microseconds, lognormal with a few slow ones."""
    rng = np.random.default_rng(seed)
    found = rng.lognormal(np.log(middle_ms * 1000), 0.45, count)
    slow = rng.random(count) < 0.01
    return np.maximum(1, np.where(slow, found * 6, found)).astype(np.int64)


def audit_of(requests: int, *, lost: int = 0, seconds: float = 30.0) -> Audit:
    return msgspec.convert(
        {
            **dict.fromkeys((field.name for field in msgspec.structs.fields(Audit)), 0),
            "published": requests,
            "answered": requests - lost,
            "lost": lost,
            "by_status": {"ok": requests - lost},
            "seconds": seconds,
        },
        Audit,
    )


def timeline_of(seconds: int, rate: float, middle_ms: float, seed: int) -> tuple[Second, ...]:
    rng = np.random.default_rng(seed)
    found = []
    for second in range(seconds):
        due = int(rng.poisson(rate))
        stalled = second % 11 == 10
        p50 = float(middle_ms * rng.lognormal(0, 0.08) * (30 if stalled else 1))
        empty = second == seconds // 2
        found.append(
            Second(
                second=second,
                due=due,
                sent=due - int(rng.integers(0, 3)),
                answered=int(due * (0.4 if stalled else 1.02)),
                lag=int(rate * middle_ms / 1000 * (25 if stalled else 1)),
                p50=None if empty else p50,
                p99=None if empty else p50 * 4,
                max=None if empty else p50 * 9,
                rss_mb={"workers": 210 + 0.2 * second, "broker": 900 + second, "harness": 160.0},
            )
        )
    return tuple(found)


def result_of(
    *,
    name: str = "steady",
    rate: float = 2000.0,
    middle_ms: float = 4.3,
    seconds: int = 30,
    refused: str | None = None,
    lost: int = 0,
    backlog: bool = False,
    contender: Contender | None = None,
    cpu_per_100k: float = 1.2,
    stages: Sequence[str] = tuple(SHARES),
    measured: bool = True,
    seed: int = 1,
) -> Result:
    """A run's result; without ``measured`` nothing was answered, so there is no latency, stage or batch."""
    requests = int(rate * seconds)
    to_append = latencies(min(requests, 2_000), middle_ms, seed)
    means = {stage: SHARES[stage] * middle_ms for stage in stages}
    whole = sum(means.values()) / 0.98
    means["other"] = whole - sum(means.values())
    used = {
        who: Used(cpu_s=cpu * requests / 1e5, cpu_s_per_100k=cpu, rss_mb=memory, rss_mb_most=memory * 1.1)
        for who, cpu, memory in (("workers", cpu_per_100k, 230.0), ("broker", 1.4, 930.0), ("harness", 0.9, 160.0))
    }
    workload = Workload(
        arrivals=Backlog(requests=requests) if backlog else Poisson(rate=rate),
        texts=MadeTexts(),
        seconds=float(seconds),
        warm_up=5.0,
    )
    return Result(
        name=name,
        contender=contender or Contender(name=name, worker=WorkerProgram(model="full.safetensors", processes=2)),
        workload=workload,
        machine=MACHINE,
        begun_at="2026-11-24T17:00:00+00:00",
        seconds=float(seconds),
        published=requests,
        answered=requests - lost if measured else 0,
        rate=rate if measured else 0.0,
        goodput=rate * 0.999 if measured else 0.0,
        refused=refused,
        append_clock="append",
        to_append=latency_of(to_append) if measured else None,
        to_reader=latency_of(to_append + 900) if measured else None,
        lateness=Lateness(p50=0.4, p99=2.3, max=7.9, late=0.0),
        stages=tuple(Stage(name=n, mean=m, share=m / whole) for n, m in means.items()) if measured else (),
        batch_sizes={"1": 210, "4": 850, "16": 1900, "64": 640, "256": 31, "+Inf": 0} if measured else {},
        timeline=timeline_of(seconds + 5, rate, middle_ms, seed) if measured else (),
        used=used,
        audit=audit_of(requests, lost=lost if measured else requests, seconds=float(seconds)),
    )


def comparison_of(rates: dict[str, float], *, rounds: int = 3, refused: str | None = None) -> Comparison:
    """Drains of contenders in turn. The last run of the contender called ``refused`` has no verdict."""
    rng = np.random.default_rng(3)
    results = {
        name: tuple(
            result_of(
                name=name,
                rate=rate * float(rng.lognormal(0, 0.03)),
                middle_ms=20_000 / rate**0.5,
                seconds=3,
                backlog=True,
                contender=Contender(name=name, program=Program(command=("python", "loop.py"))),
                cpu_per_100k=120_000 / rate,
                seed=turn,
                refused="the broker was away" if name == refused and turn == rounds - 1 else None,
            )
            for turn in range(rounds)
        )
        for name, rate in rates.items()
    }
    first = next(iter(rates))
    differences = {
        name: (
            Difference(
                figure="rate",
                a=rates[first],
                b=rate,
                ratio=rate / rates[first],
                low=rate / rates[first] * 0.94,
                high=rate / rates[first] * 1.065,
                confidence=0.95,
                rounds=rounds,
            ),
        )
        for name, rate in list(rates.items())[1:]
    }
    return Comparison(results=results, differences=differences)


CONTENDERS = {
    "headrace, two processes": 103_000.0,
    "headrace, one process": 71_000.0,
    "headrace, constant": 158_000.0,
    "echo (confluent-kafka)": 250_000.0,
    "FastStream batch, PyTorch": 3_070.0,
    "Quix Streams sink, ONNX Runtime": 5_300.0,
    "bytewax, PyTorch": 2_600.0,
    "one message at a time, PyTorch": 904.0,
}
