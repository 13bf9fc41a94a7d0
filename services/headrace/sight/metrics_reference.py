"""The page docs/metrics.md, generated from the code, and the list of all names that were ever published.

Run ``python -m headrace.sight.metrics_reference`` after a change of a metric; ``--check`` writes nothing and ends with
1 when a file is not what would be written. Names are a contract: dashboards and alerts of others use them. A name that
is gone from the code has to say so in ``metric_names.txt``: ``NAME removed: why, and what to use``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec
from prometheus_client import CollectorRegistry

from headrace.gateway.metrics import GatewayMetrics
from headrace.labeller.metrics import LabellerMetrics
from headrace.sight.metric_advice import ADVICE
from headrace.sight.surroundings import SurroundingsMetrics
from headrace.trainer.metrics import TrainerMetrics
from headrace.worker.metrics import WorkerMetrics

NAMES = Path(__file__).with_name("metric_names.txt")
PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
PROCESSES: dict[str, Any] = {
    "Every process": SurroundingsMetrics,
    "Worker": WorkerMetrics,
    "Trainer": TrainerMetrics,
    "Labeller": LabellerMetrics,
    "Gateway": GatewayMetrics,
}
COMMON = "headrace_broker_connected"


class Told(msgspec.Struct, frozen=True):
    """A metric: its name as it is scraped, Prometheus's type, its labels and what it means."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def told_by(metrics: Any) -> list[Told]:
    """The metrics that ``metrics``, a class of them, registers."""
    registry = CollectorRegistry()
    metrics(registry)
    found = []
    for collector in registry._collector_to_names:  # noqa: SLF001 - a metric without children tells no labels
        for family in collector.collect():
            labels: tuple[str, ...] = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append(Told(name, family.type, tuple(labels), family.documentation))
    return found


def all_told() -> dict[str, list[Told]]:
    """By process what it tells, each metric once."""
    by_process = {process: told_by(metrics) for process, metrics in PROCESSES.items()}
    common = next(one for one in by_process["Worker"] if one.name == COMMON)
    by_process["Every process"].append(common)
    return {
        process: [one for one in told if one.name != COMMON or process == "Every process"]
        for process, told in by_process.items()
    }


def page(by_process: Mapping[str, list[Told]], advice: Mapping[str, str]) -> str:
    """The page in Markdown. Raises KeyError for a metric of which nobody says what to do."""
    lines = [
        "# Metrics",
        "",
        "Made by `python -m headrace.sight.metrics_reference` from the code; `make lint` fails while it is not",
        "current. Every process serves them at `/metrics` of its [admin port](operations.md#ports), beside its CPU",
        "seconds, memory and open files (`process_...`). A histogram has `_bucket`, `_sum` and `_count` behind its",
        "name. A name stays; one that has to go is in the list `services/headrace/sight/metric_names.txt` with what",
        "to use instead.",
    ]
    for process, told in by_process.items():
        lines += [
            "",
            f"## {process}",
            "",
            "| metric | type | labels | meaning | when it moves |",
            "|---|---|---|---|---|",
        ]
        for one in sorted(told, key=lambda one: one.name):
            labels = ", ".join(f"`{label}`" for label in one.labels)
            lines.append(f"| `{one.name}` | {one.type} | {labels} | {one.meaning} | {advice[one.name]} |")
    return "\n".join(lines) + "\n"


def names_after(listed: str, current: set[str]) -> str:
    """The list with the names that are new, sorted. What is listed stays."""
    known = {line.partition(" ")[0]: line for line in listed.splitlines() if line}
    return "".join(f"{known.get(name, name)}\n" for name in sorted(known.keys() | current))


def vanished(listed: str, current: set[str]) -> list[str]:
    """Names that the code has no more and whose line does not say why."""
    lines = (line.partition(" ") for line in listed.splitlines() if line)
    return [name for name, _, said in lines if name not in current and not said.startswith("removed: ")]


def faults(by_process: Mapping[str, list[Told]], listed: str, advice: Mapping[str, str]) -> Iterator[str]:
    """What a person has to write before the files can be made."""
    current = {one.name for told in by_process.values() for one in told}
    for name in vanished(listed, current):
        yield f"{name} was published and is gone: write `{name} removed: why, and what to use` into {NAMES.name}"
    for name in sorted(current - advice.keys()):
        yield f"{name}: metric_advice.py does not say what to do when it moves"
    for name in sorted(advice.keys() - current):
        yield f"{name}: metric_advice.py speaks of it, and no process tells it"


def main(arguments: list[str], out: TextIO) -> int:
    """Write both files, or with ``--check`` compare; return the exit status."""
    by_process, listed = all_told(), NAMES.read_text(encoding="utf-8") if NAMES.exists() else ""
    if wrong := list(faults(by_process, listed, ADVICE)):
        out.write("".join(f"{line}\n" for line in wrong))
        return 1
    current = {one.name for told in by_process.values() for one in told}
    wanted = {PAGE: page(by_process, ADVICE), NAMES: names_after(listed, current)}
    old = [file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        out.writelines(f"{file.name} is out of date; run: python -m headrace.sight.metrics_reference\n" for file in old)
        return 1 if old else 0
    for file in old:
        file.write_text(wanted[file], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout))
