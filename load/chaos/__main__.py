"""Faults on a real Apache Kafka that it starts (Java 17), each run judged by a checker of its history.

    python -m load.chaos --out FOLDER [--fault NAME ...] [--seeds 3] [--jobs 1] [--watch] [--docs docs/chaos.md]

It ends with 1 when the promise was broken. Each run's files are in a folder of its own there. What FOLDER holds the
outcome of already is not run again, so a command that was interrupted goes on.

After Jepsen: what clients were told is written down while faults happen, and afterwards the history either keeps the
promise or not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from headrace_load.workload.texts import load_texts
from load.chaos.cluster import cluster
from load.chaos.faults import ALL, SEEN
from load.chaos.run import Outcome, run, summary, table, write_docs
from load.chaos.world import TEXTS, Fault, sequence
from load.made import made_artifact

SEQUENCES = tuple(sequence(ALL, nodes) for nodes in (1, 3))


async def main(options: argparse.Namespace, console: Console) -> bool:
    """All runs; whether all kept the promise."""
    known = (*ALL, *SEEN, *SEQUENCES) if options.fault else (*ALL, *SEQUENCES)
    faults = [fault for fault in known if not options.fault or fault.name in options.fault]
    file, model = options.out / "outcomes.json", options.out / "model.safetensors"
    outcomes = msgspec.json.decode(file.read_bytes(), type=list[Outcome]) if file.exists() else []
    had = {(outcome.fault, outcome.seed) for outcome in outcomes}
    groups = [
        deque((fault, seed) for fault in together for seed in range(options.seeds) if (fault.name, seed) not in had)
        for together in ([fault for fault in faults if fault.nodes == nodes] for nodes in (1, 3))
    ]
    made_artifact(load_texts(TEXTS, 0), model, words=TEXTS.words)

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        _tell(console, outcome)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))

    async with asyncio.TaskGroup() as jobs:
        for _ in range(options.jobs):
            jobs.create_task(_job(groups, model, options, done))
    text = f"{summary(outcomes)}\n\n{table(faults, outcomes)}"
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    if options.docs is not None:
        write_docs(options.docs, text)
    console.print(text, soft_wrap=True, markup=False)
    return all(outcome.error is None for outcome in outcomes)


async def _job(
    groups: Sequence[deque[tuple[Fault, int]]],
    model: Path,
    options: argparse.Namespace,
    done: Callable[[Outcome], None],
) -> None:
    """Take runs, group by group, each group on a cluster of this job's own."""
    for waiting in groups:
        if not waiting:
            continue
        first, _ = waiting[0]
        out: Path = options.out
        where = tempfile.mkdtemp(prefix="kafka-", dir=out)
        async with cluster(first.nodes, Path(where)) as found:
            while waiting:
                fault, seed = waiting.popleft()
                folder = out / f"{fault.name}-{seed}"
                folder.mkdir(exist_ok=True)
                done(await run(fault, seed, found, model=model, folder=folder, watched=options.watch))


def _tell(console: Console, outcome: Outcome) -> None:
    said = [outcome.error or "kept", *([outcome.checked.line()] if outcome.checked else []), *outcome.notes]
    if outcome.alerts:
        said.append(f"fired: {', '.join(outcome.alerts)}; when it began: {', '.join(outcome.alerts_before) or 'none'}")
    lines = [
        f"{outcome.fault} {outcome.seed} ({outcome.seconds:.0f} s): {said[0]}",
        *(f"    {line}" for line in said[1:]),
    ]
    console.print("\n".join(lines), soft_wrap=True, markup=False)


def parse() -> argparse.Namespace:
    """Read the command line."""
    names = [fault.name for fault in (*ALL, *SEEN, *SEQUENCES)]
    parser = argparse.ArgumentParser(prog="python -m load.chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or one to go on with")
    parser.add_argument("--fault", nargs="*", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each fault")
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other, each job on its own cluster")
    parser.add_argument("--watch", action="store_true", help="a Prometheus beside each run says which alerts fired")
    parser.add_argument("--docs", type=Path, help="a page whose table is written anew")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    asked.out.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if asyncio.run(main(asked, Console(highlight=False))) else 1)
