"""Metrics of real processes, before a fault and under it, as Prometheus's rules see them.

What they were before stands for a quiet hour, what they are under it for the time behind; counters go on as they did
from the one to the other.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "headrace.rules.yaml"
PROMTOOL = shutil.which("promtool")
NEEDS_PROMTOOL = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)"
)
QUIET_M, UNDER_M = 60, 60

Samples = dict[str, float]


class Watched:
    """The metrics of a process, of a job and maybe one of several ``instance``s, taken before a fault and under it.

    Time stamps are told from ``epoch_s`` on, because promtool's clock begins at 0.
    """

    def __init__(
        self, registry: CollectorRegistry, job: str = "headrace-worker", instance: str = "", epoch_s: float = 0.0
    ) -> None:
        self.registry = registry
        self._labels = {"job": job, **({"instance": instance} if instance else {})}
        self._epoch_s = epoch_s
        self.before: Samples = {}
        self.after: Samples = {}

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def quiet(self) -> None:
        """From here on the fault counts."""
        self.before = self._samples()

    def under(self) -> None:
        """What the metrics are now is what they are under the fault; the end of the process changes them."""
        self.after = self._samples()

    def series(self, under_m: int) -> list[dict[str, str]]:
        """Both as promtool's input, the fault for ``under_m`` minutes."""
        found = []
        for name, now in self.after.items():
            before = self.before.get(name)
            if "_total{" in name:
                begun = before or 0.0
                found.append({"series": name, "values": f"{begun}x{QUIET_M} {now}+{now - begun}x{under_m}"})
            else:
                quiet = f"{before}x{QUIET_M}" if before is not None else f"_x{QUIET_M}"
                found.append({"series": name, "values": f"{quiet} {now}x{under_m}"})
        return found

    def _samples(self) -> Samples:
        return {
            f"{sample.name}{{{','.join(f'{key}={chr(34)}{of}{chr(34)}' for key, of in labels.items())}}}": sample.value
            - (self._epoch_s if "_timestamp_" in sample.name else 0.0)
            for family in self.registry.collect()
            for sample in family.samples
            if not sample.name.endswith(("_created", "_bucket")) and not math.isnan(sample.value)
            for labels in ({**self._labels, **sample.labels},)
        }


def fired(watched: Watched | list[Watched], folder: Path, *alerts: str, under_m: int = UNDER_M) -> None:
    """Let Prometheus say that all of ``alerts`` fire under the fault, and none of them before."""
    processes = [watched] if isinstance(watched, Watched) else watched
    fire([row for one in processes for row in one.series(under_m)], folder, *alerts, under_m=under_m)


def fire(series: list[dict[str, str]], folder: Path, *alerts: str, under_m: int = UNDER_M) -> None:
    """The same of series that are made already."""
    checks = [
        {
            "eval_time": f"{at}m",
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0',
            **expected,
        }
        for alert in alerts
        for at, expected in (
            (QUIET_M - 1, {"exp_samples": []}),
            (QUIET_M + under_m - 5, {"exp_samples": [{"value": 1}]}),
        )
    ]
    test: dict[str, Any] = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    file = folder / "faults.yaml"
    file.write_bytes(msgspec.json.encode({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
