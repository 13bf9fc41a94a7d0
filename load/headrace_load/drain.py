"""Drain a backlog on real Apache Kafka: a worker with its model, and the same stages without, in turn.

    python -m headrace_load.drain --model MODEL --texts FILE.jsonl [--requests 100000] [--rounds 3] [--kill]

The rate is between the append of the first answer and of the last, so the start of the process is not in it. A first
round warms the broker (its compiler doubles its speed) and does not count. ``--kill`` ends the worker by SIGKILL when
a third is answered and starts it again; every run ends with the audit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

import msgspec

from headrace.client import Client, Published, connect
from headrace_load.audit import Audit, audit
from headrace_load.processes import apache_kafka, headrace, running

LIMIT_S = 300.0
POLL_S = 0.2
BACKENDS = ("cpu", "constant")


class Run(msgspec.Struct, frozen=True):
    """One drain: the backend, the audit, requests a second, and the worker's CPU seconds for 100,000 of them."""

    backend: str
    audit: Audit
    rate: float
    cpu_per_100k: float


async def drain(
    bootstrap: str,
    prefix: str,
    backend: str,
    model: Path,
    texts: list[str],
    processes: int,
    folder: Path,
    *,
    kill: bool,
) -> Run:
    """Fill a requests topic of its own, start the worker and wait until all is answered."""
    at = ("--bootstrap", bootstrap, "--set", f"topics.prefix={prefix}")
    await headrace(*at, "topics", "apply")
    command: tuple[str, ...] = (
        *at,
        "--set",
        "admin.port=0",
        "worker",
        "--model",
        str(model),
        "--backend",
        backend,
        "--group",
        prefix,
    )
    if processes > 1:
        command = (*command, "--processes", str(processes))
    async with connect(bootstrap, requests=f"{prefix}classify.requests", results=f"{prefix}classify.results") as client:
        published = await client.publish_many(texts)
        async with running(*command, log=folder / f"{prefix}worker.log") as worker:
            await answered(client, len(texts) // 3 if kill else len(texts))
            cpu = worker.cpu_seconds()
            if kill:
                await worker.kill()
        if kill:
            async with running(*command, log=folder / f"{prefix}worker.log") as worker:
                await answered(client, len(texts))
                cpu += worker.cpu_seconds()
        return _run(backend, await audit(client, published), cpu, published)


def _run(backend: str, found: Audit, cpu: float, published: list[Published]) -> Run:
    return Run(backend, found, len(published) / max(found.seconds, 1e-3), cpu * 1e5 / len(published))


async def answered(client: Client, count: int) -> None:
    """Wait until the results topic holds ``count`` answers. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            async with client.reader("latest") as reader:
                if sum(reader.positions.values()) >= count:
                    return
            await asyncio.sleep(POLL_S)


async def main(options: argparse.Namespace) -> None:
    """Run the rounds and print them. Raises SystemExit when an audit fails."""
    texts = [json.loads(line)["text"] for line in options.texts.read_text(encoding="utf-8").splitlines()]
    backlog = [texts[number % len(texts)] for number in range(options.requests)]
    backends = options.backends
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as name:
        folder = options.logs or Path(name)
        async with apache_kafka() as bootstrap:
            for number in range(-1, options.rounds):
                for backend in backends:
                    prefix = f"{backend}-{number + 1}."
                    run = await drain(
                        bootstrap, prefix, backend, options.model, backlog, options.processes, folder, kill=options.kill
                    )
                    print(
                        f"{'warm-up' if number < 0 else f'round {number + 1}'} {backend}: {run.rate:,.0f} requests/s, "
                        f"{run.cpu_per_100k:.2f} CPU s per 100,000 (its start included); {run.audit.line()}",
                        flush=True,
                    )
                    if number >= 0:
                        runs.append(run)
    medians = {b: statistics.median(run.rate for run in runs if run.backend == b) for b in backends}
    for backend, rate in medians.items():
        print(f"{backend}: median {rate:,.0f} requests/s")
    if len(medians) > 1:
        first, second = backends
        print(f"{first} against {second}: {medians[first] / medians[second]:.2f}")
    if not all(run.audit.kept for run in runs):
        raise SystemExit("the audit failed")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m headrace_load.drain", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="an artifact of `headrace train`")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a field text")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS))
    parser.add_argument("--kill", action="store_true", help="kill the worker in the middle of each drain")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
