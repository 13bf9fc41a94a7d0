"""A flood of rubbish through a live worker on a real Apache Kafka, beside the same good requests without it.

    python -m load.flood --out FOLDER [--requests 1000000] [--rounds 1]

As many records that are no requests as good ones, mixed, are drained by one process; then the good ones alone. Every
good one has to be answered `ok`, every other `failed`, and exactly these have to be on the dead-letters topic with
their reason. Rounds take turns, because the broker compiles what it does often while it does it, and the machine's
speed drifts. It needs no data, and Java 17. It ends with 1 when anything was otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from rich.console import Console

from headrace.client.dead_letters import read_dead_letters
from headrace.kafka.aio import AioKafkaCluster
from headrace_load.contender import Contender, WorkerProgram, starter
from headrace_load.measure.audit import STATUSES, Audit, Columns, audited, join, keys
from headrace_load.measure.evaluation import Measurements
from headrace_load.measure.machine import machine
from headrace_load.measure.run import RunSetup, drain_backlog
from headrace_load.target import System, Target, TargetOptions, make_topics, open_target, remove_topics
from headrace_load.workload.spec import Backlog, Bad, MadeTexts, Workload
from headrace_load.workload.texts import load_texts, parse_request
from load.made import made_artifact

# One in a thousand is too large: more of these 64 KB would measure the disk.
SMALL = ("not-json", "no-text", "bad-utf8", "bad-header", "null")
KINDS = (*(SMALL * 200), "too-large")
WARM_UP = 400_000
LEAST_RATIO = 0.5


class Memory(Struct, frozen=True, kw_only=True):
    """The worker's megabytes in the second and the last quarter of a drain, and their slope by least squares."""

    second_quarter: float
    last_quarter: float
    most: float
    mb_per_100k: float
    samples: int


class Drain(Struct, frozen=True, kw_only=True):
    """One drain. ``wrong`` are good requests that were not answered `ok`, and others that were not `failed`."""

    records: int
    good: int
    rate: float
    """Records a second."""
    good_rate: float
    audit: Audit
    wrong: int
    memory: Memory
    worker_cpu_s: float


class Letters(Struct, frozen=True, kw_only=True):
    """The dead letters of a drain by reason. ``missing`` were failed and have none, ``stray`` are of no failed request,
    ``repeated`` were there before, ``sound`` would be good requests, ``silent`` have no message.
    """

    by_reason: dict[str, int]
    missing: int
    stray: int
    repeated: int
    sound: int
    silent: int


class Round(Struct, frozen=True, kw_only=True):
    """A drain with rubbish, its dead letters, and the drain of the good ones alone."""

    mixed: Drain
    letters: Letters
    alone: Drain

    @property
    def ratio(self) -> float:
        """Records a second with rubbish among them to without."""
        return self.mixed.rate / self.alone.rate

    @property
    def good_ratio(self) -> float:
        """Good ones a second with rubbish among them to without."""
        return self.mixed.good_rate / self.alone.good_rate

    def faults(self) -> list[str]:
        """What was not as it has to be."""
        letters, mixed = self.letters, self.mixed
        checks = (
            (mixed.audit.kept and self.alone.audit.kept, "an audit failed"),
            (mixed.wrong == self.alone.wrong == 0, "requests were answered otherwise than they have to be"),
            (letters.missing == letters.stray == 0, "the dead letters are not those of the failed requests"),
            (letters.sound == 0, "good requests are on the dead-letters topic"),
            (letters.silent == 0, "dead letters have no message"),
            (self.ratio >= LEAST_RATIO, f"the throughput is {self.ratio:.2f} of that without rubbish"),
        )
        return [fault for kept, fault in checks if not kept]

    def lines(self) -> list[str]:
        """The figures in Markdown."""
        rows = [
            f"| {name} | {one.records:,} | {one.audit.by_status.get('ok', 0):,} | "
            f"{one.audit.by_status.get('failed', 0):,} | {one.audit.lost:,} | {one.rate:,.0f} | {one.good_rate:,.0f} | "
            f"{one.memory.second_quarter:.0f} / {one.memory.last_quarter:.0f} | {one.memory.mb_per_100k:+.2f} |"
            for name, one in (("good alone", self.alone), ("mixed 1:1", self.mixed))
        ]
        letters = self.letters
        alone, mixed = (1e6 * one.worker_cpu_s / one.records for one in (self.alone, self.mixed))
        return [
            "| drain | records | ok | failed | lost | records/s | good ones/s | MB, 2nd, 4th quarter | MB a 100,000 |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "| reason | dead letters |",
            "|---|---|",
            *(f"| {reason} | {count:,} |" for reason, count in sorted(letters.by_reason.items())),
            "",
            f"Records/s with rubbish to without: {self.ratio:.2f}; good ones/s: {self.good_ratio:.2f}.",
            f"CPU of the worker a record: {alone:.1f} us alone, {mixed:.1f} us mixed.",
            f"Failed without a dead letter: {letters.missing}; dead letters of none that failed: {letters.stray}.",
            f"Letters of good ones: {letters.sound}, without a message: {letters.silent}, twice: {letters.repeated}.",
            self.mixed.audit.line(),
            self.alone.audit.line(),
            *(f"FAULT: {fault}." for fault in self.faults()),
            "",
        ]


class Flood(Struct, frozen=True, kw_only=True):
    """The result."""

    machine: object
    rounds: list[Round]

    def lines(self) -> list[str]:
        """The figures in Markdown."""
        ratios = [one.ratio for one in self.rounds]
        return [
            *(line for one in self.rounds for line in one.lines()),
            f"Records/s with rubbish to without, median of {len(ratios)}: {statistics.median(ratios):.2f}.",
        ]


async def drain(
    at: Target, model: Path, out: Path, name: str, requests: int, share_bad: float
) -> tuple[Drain, Letters | None]:
    """Publish ``requests`` records and let one process answer them; of rubbish its dead letters too."""
    made_texts = MadeTexts()
    workload = Workload(
        arrivals=Backlog(requests=requests),
        texts=made_texts,
        bad=Bad(share=share_bad, kinds=KINDS) if share_bad else None,  # type: ignore[arg-type]
        read="after",
        producers=2,
    )
    system = at.own(name)
    await make_topics(system, at.partitions)
    folder = _without_logs(out / name)
    contender = Contender(name="headrace", worker=WorkerProgram(model=str(model)))
    start = starter(contender, system, group=f"{at.prefix}{name}", folder=folder, wait=False)
    with tempfile.TemporaryDirectory(prefix="headrace-flood-") as made:
        texts = Path(made) / "texts.json"
        texts.write_bytes(msgspec.json.encode(load_texts(made_texts, workload.seed)))
        setting = RunSetup(
            workload=workload,
            system=system,
            answers="log",
            start=start,
            folder=Path(made),
            texts=texts,
            progress=lambda _: None,
        )
        found = await drain_backlog(setting)
    letters = await dead_letters(system, _failed(found)) if share_bad else None
    if not at.transient:
        await remove_topics(system)
    return _judged(found), letters


async def dead_letters(system: System, failed: Columns) -> Letters:
    """Read the dead letters, and hold them against the places of the ``failed`` requests."""
    by_reason: Counter[str] = Counter()
    places: list[tuple[int, int]] = []
    sound = silent = 0
    async for found in read_dead_letters(AioKafkaCluster(system.kafka_settings()), system.dead_letters):
        letter = found.letter
        by_reason[letter.error] += 1
        places.append((letter.partition, letter.offset))
        silent += not letter.message
        sound += not isinstance(parse_request(letter.value, letter.headers), str)
    of_letters = np.zeros(len(places), failed.dtype)
    of_letters["partition"], of_letters["offset"] = np.array(places, np.int64).reshape(-1, 2).T
    seen = np.unique(keys(of_letters, "log"))
    expected = keys(failed, "log")
    return Letters(
        by_reason=dict(by_reason),
        missing=int((~np.isin(expected, seen)).sum()),
        stray=int((~np.isin(seen, expected)).sum()),
        repeated=len(places) - len(seen),
        sound=sound,
        silent=silent,
    )


def _without_logs(folder: Path) -> Path:
    """The folder, there and without the logs of a run before: addresses are read from logs."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        log.unlink()
    return folder


def _statuses(found: Measurements) -> np.ndarray:
    """The index of each request's status; -1 where there is no answer."""
    first = join(found.sent, found.answered, "log")
    return np.where(first >= 0, found.answered["status"][np.maximum(first, 0)], -1)


def _failed(found: Measurements) -> Columns:
    failed: Columns = found.sent[_statuses(found) == STATUSES.index("failed")]
    return failed


def _judged(found: Measurements) -> Drain:
    sent, good = found.sent, found.sent["good"]
    audit = audited(sent, found.answered, "log", records=found.records)
    expected = np.where(good, STATUSES.index("ok"), STATUSES.index("failed"))
    used = found.used["workers"]
    return Drain(
        records=len(sent),
        good=int(good.sum()),
        rate=audit.answered / audit.seconds,
        good_rate=float(good.sum()) / audit.seconds,
        audit=audit,
        wrong=int((_statuses(found) != expected).sum()),
        memory=_memory(found, audit.answered / audit.seconds),
        worker_cpu_s=used.cpu_s - used.start_cpu_s,
    )


def _memory(found: Measurements, rate: float) -> Memory:
    """Of the seconds between the first answer and the last."""
    begin_us = int(found.answered["appended_us"].min())
    end_us = int(found.answered["appended_us"].max())
    points = [
        ((at_us - begin_us) / 1e6, used["workers"])
        for at_us, used in found.samples
        if begin_us <= at_us <= end_us and "workers" in used
    ]
    quarter = len(points) // 4
    steady = points[quarter:]
    slope = 0.0
    if len(steady) > 1:
        slope = statistics.linear_regression(*zip(*steady, strict=True)).slope
    return Memory(
        second_quarter=_mean(points[quarter : 2 * quarter]),
        last_quarter=_mean(points[len(points) - quarter :]),
        most=max((used for _, used in points), default=0.0),
        mb_per_100k=slope / rate * 1e5,
        samples=len(points),
    )


def _mean(points: Sequence[tuple[float, float]]) -> float:
    return statistics.fmean(used for _, used in points) if points else 0.0


async def main(options: argparse.Namespace, console: Console) -> int:
    """Run, print and write the figures; 1 when something was not as it has to be."""
    out = _without_logs(options.out)
    model = out / "model.safetensors"
    made_artifact(load_texts(MadeTexts(), 0), model)
    async with open_target(TargetOptions(broker="apache"), os.environ, out) as found:
        at = msgspec.structs.replace(found, transient=False)
        # The broker's first seconds are slow.
        await drain(at, model, out, "warm-up", min(WARM_UP, options.requests), 0.5)
        rounds = [await one_round(at, model, out, number, options.requests) for number in range(options.rounds)]
    flood = Flood(machine=machine(), rounds=rounds)
    (out / "flood.json").write_bytes(msgspec.json.format(msgspec.json.encode(flood), indent=1))
    (out / "flood.md").write_text("\n".join(flood.lines()) + "\n", encoding="utf-8")
    for line in flood.lines():
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return 1 if any(one.faults() for one in rounds) else 0


async def one_round(at: Target, model: Path, out: Path, number: int, requests: int) -> Round:
    """Drain the good ones among as many others, and then alone."""
    mixed, letters = await drain(at, model, out, f"mixed-{number}", 2 * requests, 0.5)
    alone, _ = await drain(at, model, out, f"alone-{number}", requests, 0.0)
    assert letters is not None  # noqa: S101 - half of that drain was rubbish
    return Round(mixed=mixed, letters=letters, alone=alone)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m load.flood", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=1_000_000, help="good ones, and about as many others")
    parser.add_argument("--rounds", type=int, default=1, help="drains of each kind, in turn")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    sys.exit(asyncio.run(main(asked, Console())))
