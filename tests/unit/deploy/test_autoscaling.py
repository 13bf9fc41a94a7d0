"""Workers under KEDA: the trigger's query on a real Prometheus engine, and the rules over a simulated day."""

from __future__ import annotations

import math
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.benchmarks.autoscaling import World, answered_by, even, rate_at, rules_of, scaled_object, simulate
from tests.support.charts import of_kind, rendered

PROMTOOL = shutil.which("promtool")
CAPACITY = 20_000
SERIES = 'job="headrace-worker",namespace="texts"'


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)")
def test_the_query_says_how_many_workers_are_needed(tmp_path: Path) -> None:
    """On four partitions, by requests a second and lag; 60 s to drain, 20,000 answers a second of each worker."""
    cases = {
        (0, 0): 0,  # and KEDA's least is one
        (15_000, 0): 1,
        (15_000, 1): 1,  # a marker that stays
        (25_000, 0): 2,
        (50_000, 0): 4,  # three workers would leave one with two partitions
        (15_000, 1_200_000): 2,
        (15_000, 10**9): 4,
        (400_000, 0): 4,
    }
    told = of_kind(rendered("claim"), "ScaledObject")[0]["spec"]["triggers"][0]["metadata"]
    assert told["threshold"] == "1"
    tests: list[dict[str, Any]] = []
    for (rate, lag), wanted in cases.items():
        waiting = f"{lag / 4}+0x20"
        tests.append(
            {
                "interval": "15s",
                "input_series": [
                    {
                        "series": f'headrace_requests_fetched_total{{{SERIES},pod="a"}}',
                        "values": f"0+{rate * 15}x20",
                    },
                    *(
                        {"series": f'headrace_lag_records{{{SERIES},partition="{number}"}}', "values": waiting}
                        for number in range(4)
                    ),
                ],
                "promql_expr_test": [
                    {"expr": told["query"], "eval_time": "4m", "exp_samples": [{"labels": "{}", "value": wanted}]}
                ],
            }
        )
    file = tmp_path / "query.yaml"
    file.write_text(yaml.safe_dump({"tests": tests}), encoding="utf-8")
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 12, 16, 100])
def test_the_number_of_workers_is_enough_and_the_least_that_is(partitions: int) -> None:
    world = World(CAPACITY, partitions)
    for needed in (0.0, 0.3, 1.0, 1.01, 2.5, 6.0, 6.01, 11.0, partitions, partitions * 2.0):
        workers = even(needed, partitions)
        within = min(needed, partitions)
        assert workers <= partitions
        assert answered_by(max(workers, 1), world) >= within * CAPACITY * (1 - 1e-9)
        if workers > 1:
            assert answered_by(workers - 1, world) < within * CAPACITY * (1 + 1e-9)


def test_over_a_day_workers_follow_the_load_and_nothing_swings() -> None:
    rules = rules_of(scaled_object(CAPACITY, 12), CAPACITY)
    world = World(CAPACITY, 12)
    told = simulate(rules, world)
    counts = [one.workers for one in told]
    assert (min(counts), max(counts)) == (1, 12)
    assert told[-1].lag == 0
    # Up in the morning and down at night, and once each for the spike.
    assert sum(one != before for before, one in pairwise(counts)) <= 20
    assert math.isclose(max(map(rate_at, range(24 * 3600))), 200_000, rel_tol=0.01)


def test_what_partitions_can_not_answer_waits_and_is_answered_later() -> None:
    told = simulate(rules_of(scaled_object(CAPACITY, 8), CAPACITY), World(CAPACITY, 8))
    assert max(one.workers for one in told) == 8
    assert max(one.lag for one in told) > 10**8
    assert told[-1].lag == 0
