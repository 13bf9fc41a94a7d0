"""headrace beside its peers, in one command, on a real Apache Kafka that it starts (Java 17).

    python -m load.peers --model FULL.safetensors --champion CHAMPION.safetensors --texts FILE.jsonl

It exports the model for the peers, drains backlogs in turn, sends at steady rates, and writes tables, results as JSON,
pages and pictures to --out. It ends with 1 when an audit failed or a verdict was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from rich.console import Console

from headrace_load.contender import Contender
from headrace_load.report.html import write_report
from headrace_load.report.pictures import write_pictures
from headrace_load.report.tables import Table, table
from headrace_load.result import Comparison, Result, write
from headrace_load.runner import COMPARISON, REPORT, Runner, stand
from headrace_load.target import TargetOptions, open_target
from headrace_load.workload.spec import FileTexts, Workload
from load.peers.bench import (
    HEADRACE,
    Once,
    drained,
    drained_table,
    drains,
    echo,
    faststream,
    headrace,
    markdown,
    steady,
    steady_table,
)
from load.peers.export import export, read_texts

WIDTH = 140
"""Columns of a file or a pipe, where nobody says how many there are."""
STEADY_S = 110.0
"""How long the runs at steady rates take: the drains have to end so much earlier."""


async def main(options: argparse.Namespace, console: Console) -> bool:
    """All runs; whether all figures stand."""
    until = time.monotonic() + 60 * options.minutes - STEADY_S
    out: Path = options.out
    exported = out / "exported"
    for engine, share in export(options.model, read_texts(options.texts), exported).items():
        console.print(f"{engine} has the label of the artifact's convolution for {share:.1%} of the texts")
    texts = FileTexts(path=str(options.texts.resolve()))
    workers = headrace(HEADRACE, options.model)
    async with open_target(TargetOptions(broker="apache"), os.environ, out) as found:
        # Not transient: topics go with their run, so that the broker does not grow over the rounds.
        runner = Runner(target=msgspec.structs.replace(found, transient=False), folder=out / "runs", console=console)
        once = _numbered(runner)
        contenders = drained(options.model, options.champion, exported)
        drain = await drains(contenders, texts, once, console.print, rounds=options.rounds, until=until)
        rates = {20_000: (echo(), workers), 1_500: (faststream(exported), workers)}
        steadies = {
            f"{rate:,} a second": await steady(rate, asked, texts, once, console.print) for rate, asked in rates.items()
        }
    tables = [drained_table(drain), *(steady_table(name, comparison) for name, comparison in steadies.items())]
    for name, document in {"drain": drain, **steadies}.items():
        _write(document, out / name.replace(",", "").replace(" ", "-"))
    (out / "tables.md").write_text("\n".join(map(markdown, tables)), encoding="utf-8")
    _show(tables, console)
    console.print(f"Tables, results and pages are in {out}.", soft_wrap=True)
    return stand(
        result for document in (drain, *steadies.values()) for of in document.results.values() for result in of
    )


def _numbered(runner: Runner) -> Once:
    numbers = itertools.count(1)

    async def once(contender: Contender, workload: Workload) -> Result:
        return await runner.run(workload, contender, name=contender.name, number=next(numbers))

    return once


def _write(comparison: Comparison, folder: Path) -> None:
    folder.mkdir()
    write(comparison, folder / COMPARISON)
    write_report(comparison, folder / REPORT)
    write_pictures(comparison, folder)


def _show(tables: Iterable[Table], console: Console) -> None:
    for facts in tables:
        console.print(table(facts))
        console.print(facts.note, style="dim", markup=False, highlight=False)
        console.print()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m load.peers", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="the artifact that the peers' network is made from")
    parser.add_argument("--champion", type=Path, required=True, help="a pruned artifact for headrace alone")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a field text")
    parser.add_argument("--out", type=Path, default=Path("load-results") / time.strftime("%Y%m%d-%H%M%S-peers"))
    parser.add_argument("--rounds", type=int, default=2, help="of drains, each with every contender")
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no round of drains that would end later")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(0 if asyncio.run(main(parse(), Console(width=None if sys.stdout.isatty() else WIDTH))) else 1)
