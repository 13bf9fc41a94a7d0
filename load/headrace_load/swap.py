"""Swap versions under a steady load on real Apache Kafka, and look at the longest waits beside each swap.

    python -m headrace_load.swap --models A B --texts FILE.jsonl [--rate 500] [--swaps 6] [--every 5]

The alias is moved between two artifacts, ``--every`` seconds apart. It runs twice: a worker that holds the previous
version in memory, whose later swaps need no loading, and one that does not, which loads at every swap. A wait goes from
the moment a request was due to be published to its answer's time stamp; beside a swap is from a second before the alias
moved to a second behind the first answer of the new version.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer

from headrace.client import Published, connect
from headrace_load.audit import Audit, audit
from headrace_load.drain import answered
from headrace_load.processes import apache_kafka, headrace, running
from headrace_load.steady import Waited, publish_steadily, waits
from headrace_schemas.codec import encode_models_record
from headrace_schemas.records import ModelAlias
from headrace_schemas.topics import models_key

BESIDE_MS = 1000
MODEL, ALIAS = "default", "champion"  # what a worker follows by its defaults


class Move(msgspec.Struct, frozen=True):
    """The alias was moved to ``version`` by a record of this time."""

    version: str
    moved_ms: int


class Swap(msgspec.Struct, frozen=True):
    """From the alias's record to the first answer, and the waits beside it, in milliseconds."""

    took_ms: int
    beside: list[float]


def report(swaps: Sequence[Swap], apart: Sequence[float], found: Audit) -> list[str]:
    """The figures in lines: each swap, the waits apart from all swaps, the audit."""
    lines = [f"apart from swaps: {_waits(apart)}"]
    lines += [f"swap {n}: first answer after {s.took_ms} ms; {_waits(s.beside)}" for n, s in enumerate(swaps, 1)]
    took = [swap.took_ms for swap in swaps]
    beside = [wait for swap in swaps for wait in swap.beside]
    lines.append(f"beside all swaps: {_waits(beside)}; first answer after {min(took)} to {max(took)} ms")
    return [*lines, found.line()]


def _waits(waits: Sequence[float]) -> str:
    hundredths = statistics.quantiles(waits, n=100)
    return (
        f"median {statistics.median(waits):.1f} ms, p99 {hundredths[98]:.1f} ms, worst {max(waits):.1f} ms "
        f"of {len(waits):,}"
    )


def apart_and_beside(waited: Sequence[Waited], moves: Sequence[Move]) -> tuple[list[float], list[Swap]]:
    """Part the waits. Raises ValueError when a version never answered."""
    swaps: list[Swap] = []
    near: set[int] = set()
    for move in moves:
        first_ms = min(w.answered_ms for w in waited if w.version == move.version and w.answered_ms >= move.moved_ms)
        begin, end = move.moved_ms - BESIDE_MS, first_ms + BESIDE_MS
        beside = [place for place, w in enumerate(waited) if begin <= w.due_ms <= end]
        near.update(beside)
        swaps.append(Swap(first_ms - move.moved_ms, [waited[place].ms for place in beside]))
    return [w.ms for place, w in enumerate(waited) if place not in near], swaps


async def move_alias(bootstrap: str, topic: str, versions: Sequence[str], *, swaps: int, every: float) -> list[Move]:
    """Move the alias by a record alone: starting the command would itself take the cores for a second."""
    moves: list[Move] = []
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for number in range(1, swaps + 1):
            await asyncio.sleep(every)
            version, previous = versions[number % 2], versions[(number + 1) % 2]
            now = time.time_ns() // 1_000_000
            record = ModelAlias(
                name="default",
                alias="champion",
                version=version,
                previous=previous,
                moved_at_ms=now,
                reason="load.swap",
            )
            sent = await producer.send_and_wait(topic, encode_models_record(record), key=models_key(record))
            moves.append(Move(version, sent.timestamp))
        await asyncio.sleep(every)
    return moves


async def measure(
    bootstrap: str, options: argparse.Namespace, texts: list[str], folder: Path, *, keep_previous: bool
) -> tuple[list[str], bool]:
    """One run on topics of its own; returns the figures and whether the audit holds."""
    prefix = f"swap-{'keep' if keep_previous else 'load'}."
    at = ("--bootstrap", bootstrap, "--set", f"topics.prefix={prefix}")
    await headrace(*at, "topics", "apply")
    first, second = [
        re.findall(r"-> (\S+)", await headrace(*at, "models", "publish", str(model), "--alias", alias))[0]
        for model, alias in zip(options.models, (ALIAS, "other"), strict=True)
    ]
    keep = ("--set", f"worker.keep_previous={json.dumps(keep_previous)}")
    command = (*at, *keep, "--set", "admin.port=0", "worker", "--group", prefix)
    log = folder / f"{prefix}worker.log"
    async with (
        connect(bootstrap, requests=f"{prefix}classify.requests", results=f"{prefix}classify.results") as client,
        running(*command, log=log),
    ):
        first_request = await client.publish(texts[0])
        await answered(client, 1)
        stop = asyncio.Event()
        stream = asyncio.create_task(publish_steadily(client, texts, rate=options.rate, stop=stop))
        moves = await move_alias(
            bootstrap, f"{prefix}classify.models", (first, second), swaps=options.swaps, every=options.every
        )
        stop.set()
        due: dict[Published, float] = await stream
        waited = await waits(client, due)
        found = await audit(client, [first_request, *due])
    apart, swaps = apart_and_beside(waited, moves)
    return report(swaps, apart, found), found.kept


async def main(options: argparse.Namespace) -> None:
    """Run both and print them. Raises SystemExit when an audit fails."""
    texts = [json.loads(line)["text"] for line in options.texts.read_text(encoding="utf-8").splitlines()]
    kept = True
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as name:
        folder = options.logs or Path(name)
        async with apache_kafka() as bootstrap:
            for keep_previous in (False, True):
                print("previous version held in memory" if keep_previous else "every swap loads", flush=True)
                lines, holds = await measure(bootstrap, options, texts, folder, keep_previous=keep_previous)
                print("\n".join(f"  {line}" for line in lines), flush=True)
                kept = kept and holds
    if not kept:
        raise SystemExit("the audit failed")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m headrace_load.swap", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", type=Path, nargs=2, required=True, help="two artifacts of `headrace train`")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a field text")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--swaps", type=int, default=6)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two swaps")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
