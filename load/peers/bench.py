"""The contenders, their runs and the tables: backlogs drained in turn, and arrivals at a steady rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from headrace_load.contender import Contender, Program, WorkerProgram
from headrace_load.report.tables import Table, middle, milliseconds, number, running_cpu, worker_cpu, worker_memory
from headrace_load.result import FIGURES, Comparison, Result, differences
from headrace_load.workload.spec import Backlog, FileTexts, Poisson, Workload

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, where `load.peers` is found."""

ECHO = "echo, aiokafka"
HEADRACE = "headrace, 2 processes"
FASTSTREAM = "FastStream, PyTorch"
ONNX = ("hand loop, ONNX, 1 thread", "hand loop, ONNX, 2 threads")
"""Which of them is faster depends on what else the cores do."""


class Drained(Struct, frozen=True):
    """A contender, and the requests of a backlog that take it about three seconds on two cores."""

    contender: Contender
    requests: int


def drained(full: Path, champion: Path, exported: Path) -> tuple[Drained, ...]:
    """All contenders, by artifacts and the export of ``full``. The others are compared with the first one."""
    return (
        Drained(faststream(exported), 9_000),
        Drained(echo(), 700_000),
        Drained(peer("echo, confluent-kafka", ("load.peers.echo", "confluent")), 1_000_000),
        Drained(peer("hand loop, one by one, PyTorch", ("load.peers.hand_loop", "one"), exported), 6_000),
        Drained(peer("hand loop, PyTorch, 1 thread", _BATCH, exported), 9_000),
        Drained(peer("hand loop, PyTorch, 2 threads", _BATCH, exported, threads=2), 9_000),
        Drained(peer(ONNX[0], _BATCH, exported, engine="onnx"), 12_000),
        Drained(peer(ONNX[1], _BATCH, exported, engine="onnx", threads=2), 12_000),
        Drained(peer("FastStream, ONNX", _FASTSTREAM, exported, engine="onnx"), 12_000),
        Drained(peer("Quix Streams, PyTorch", ("load.peers.quix_sink",), exported), 9_000),
        Drained(peer("bytewax, PyTorch", ("bytewax.run", "load.peers.bytewax_flow:flow"), exported), 9_000),
        Drained(peer("Pathway, PyTorch", ("load.peers.pathway_flow",), exported), 15_000),
        Drained(headrace("headrace, 1 process", full, processes=1), 350_000),
        Drained(headrace(HEADRACE, full), 500_000),
        Drained(headrace("headrace, 2 processes, champion", champion), 500_000),
        Drained(headrace("headrace, 2 processes, no model", full, backend="constant"), 800_000),
    )


def headrace(name: str, model: Path, *, processes: int = 2, backend: Literal["cpu", "constant"] = "cpu") -> Contender:
    """Workers of headrace as they are set by default."""
    worker = WorkerProgram(model=str(model.resolve()), processes=processes, backend=backend)
    return Contender(name=name, worker=worker)


def echo() -> Contender:
    """No model: the limit of the client that headrace uses."""
    return peer(ECHO, ("load.peers.echo", "aiokafka"))


def faststream(exported: Path) -> Contender:
    """FastStream, batch by batch, with eager PyTorch."""
    return peer(FASTSTREAM, _FASTSTREAM, exported)


def peer(
    name: str, module: tuple[str, ...], exported: Path | None = None, *, engine: str = "torch", threads: int = 1
) -> Contender:
    """A program of this folder, run by this Python. OpenMP is told the threads too: torch tells only its own thread."""
    environment = {"PYTHONPATH": str(ROOT), "ENGINE": engine, "THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if exported is not None:
        environment["MODEL"] = str(exported.resolve())
    command = (sys.executable, "-m", *module)
    return Contender(name=name, program=Program(command=command, answers="id", environment=environment))


_BATCH = ("load.peers.hand_loop", "batch")
_FASTSTREAM = ("faststream", "run", "load.peers.faststream_batch:app")


WARM_UPS = 3
"""Drains by the echo that don't count: a cold broker is half as fast, and a fourth drain gains little."""
WARM_UP_REQUESTS = 200_000
OPEN_SECONDS = 12.0
OPEN_WARM_UP = 4.0

Once = Callable[[Contender, Workload], Awaitable[Result]]
"""One run, on topics of its own."""


async def drains(
    contenders: Sequence[Drained],
    texts: FileTexts,
    once: Once,
    say: Callable[[str], None],
    *,
    rounds: int,
    until: float,
) -> Comparison:
    """All contenders in turn, ``rounds`` times; each round begins with another. Warms the broker up before.

    No further round is begun that would, by the longest so far, not end before ``until`` by time.monotonic().
    """
    for _ in range(WARM_UPS):
        await once(echo(), backlog(texts, WARM_UP_REQUESTS))
    results: dict[str, list[Result]] = {one.contender.name: [] for one in contenders}
    longest = 0.0
    for turn in range(rounds):
        begun = time.monotonic()
        if turn and begun + longest > until:
            say(f"No time for round {turn + 1} of {rounds}: the figures are of {turn}.")
            break
        shift = turn * len(contenders) // rounds
        for one in (*contenders[shift:], *contenders[:shift]):
            result = await once(one.contender, backlog(texts, one.requests))
            results[result.name].append(result)
            say(f"round {turn + 1}, {result.name}: {result.rate:,.0f} texts/s {result.refused or ''}")
        longest = max(longest, time.monotonic() - begun)
    found = {name: tuple(of_name) for name, of_name in results.items()}
    return Comparison(results=found, differences=differences(found))


async def steady(
    rate: float, contenders: Sequence[Contender], texts: FileTexts, once: Once, say: Callable[[str], None]
) -> Comparison:
    """Each contender in turn at the same Poisson arrivals. The others are compared with the first one."""
    results: dict[str, tuple[Result, ...]] = {}
    workload = Workload(
        arrivals=Poisson(rate=rate), texts=texts, seconds=OPEN_SECONDS, warm_up=OPEN_WARM_UP, read="after"
    )
    for contender in contenders:
        result = await once(contender, workload)
        results[contender.name] = (result,)
        latency = result.to_append
        shown = f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms" if latency else "no answer"
        say(f"{rate:,.0f}/s, {contender.name}: {shown} {result.refused or ''}")
    return Comparison(results=results, differences=differences(results))


def backlog(texts: FileTexts, requests: int) -> Workload:
    """A backlog of the texts in turn."""
    return Workload(arrivals=Backlog(requests=requests), texts=texts, read="after")


def drained_table(comparison: Comparison) -> Table:
    """Medians of the rounds that stand, and their ratios to FastStream's and the faster of ONNX Runtime's."""
    fastest = max(ONNX, key=lambda name: middle(comparison.results[name], FIGURES["rate"]) or 0.0)
    rows = tuple(
        (
            name,
            number(middle(results, FIGURES["rate"])),
            _times(comparison, name, FASTSTREAM, FIGURES["rate"]),
            _times(comparison, name, fastest, FIGURES["rate"]),
            number(middle(results, running_cpu)),
            number(middle(results, worker_memory)),
        )
        for name, results in comparison.results.items()
    )
    return Table(
        title="Draining a backlog",
        columns=("contender", "texts/s", "x FastStream", "x ONNX", "CPU s a 100,000", "memory, MB"),
        rows=rows,
        note=f'Medians of the runs that stand. Ratios are to "{FASTSTREAM}" and "{fastest}". '
        "The peers do without headrace's wide part.",
    )


def steady_table(title: str, comparison: Comparison) -> Table:
    """Latency from when a request was due to the append of its answer, and its ratio to the first contender's."""
    first = next(iter(comparison.results))
    rows = tuple(
        (
            name,
            number(middle(results, FIGURES["rate"])),
            milliseconds(middle(results, FIGURES["p50"])),
            milliseconds(middle(results, FIGURES["p99"])),
            _times(comparison, name, first, FIGURES["p50"]),
            _times(comparison, name, first, FIGURES["p99"]),
            number(middle(results, worker_cpu)),
        )
        for name, results in comparison.results.items()
    )
    columns = ("contender", "texts/s", "p50", "p99", "p50 x the first", "p99 x the first", "CPU s a 100,000")
    return Table(title=title, columns=columns, rows=rows, note="Medians of the runs that stand.")


def markdown(table: Table) -> str:
    """The table for a page of the documentation."""
    lines = [table.columns, ("---", *("--:" for _ in table.columns[1:])), *table.rows]
    return "\n".join(("| " + " | ".join(line) + " |") for line in lines) + f"\n\n{table.note}\n"


def _times(comparison: Comparison, name: str, other: str, figure: Callable[[Result], float | None]) -> str:
    mine, theirs = (middle(comparison.results[each], figure) for each in (name, other))
    return number(mine / theirs if mine is not None and theirs else None)
