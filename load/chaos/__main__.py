"""Faults on a real Apache Kafka that it starts (Java 17), each run judged by the checker.

    python -m load.chaos --out FOLDER [--fault NAME ...] [--seeds 3]

It ends with 1 when the promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from headrace_load.workload.texts import load_texts
from load.chaos.cluster import cluster
from load.chaos.faults import ALL
from load.chaos.run import run
from load.chaos.stream import workload
from load.growth import Point, made_artifact


async def main(options: argparse.Namespace, console: Console) -> bool:
    model = options.out / "model.safetensors"
    point = Point(words=2_000)
    made_artifact(load_texts(workload(1.0, 0).texts, 0), point, model)
    ok = True
    async with AsyncExitStack() as stack:
        clusters = {}
        for fault in ALL:
            if options.fault and fault.name not in options.fault:
                continue
            for seed in range(options.seeds):
                if fault.nodes not in clusters:
                    where = options.out / f"kafka-{fault.nodes}"
                    where.mkdir(parents=True)
                    clusters[fault.nodes] = await stack.enter_async_context(cluster(fault.nodes, where))
                folder = options.out / f"{fault.name}-{seed}"
                folder.mkdir()
                outcome = await run(fault, seed, clusters[fault.nodes], model=model, folder=folder)
                ok = ok and outcome.error is None
                console.print(fault.name, seed, f"{outcome.seconds:.1f} s", outcome.error or "ok")
                if outcome.checked:
                    console.print("   ", outcome.checked.line(), soft_wrap=True)
                for note in outcome.notes:
                    console.print("   ", note)
    return ok


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load.chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fault", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    asked.out.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if asyncio.run(main(asked, Console(highlight=False))) else 1)
