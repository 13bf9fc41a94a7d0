"""A day under KEDA, simulated: from 1,000 to 200,000 requests a second and back, by the chart's own rules.

    python -m tests.benchmarks.autoscaling --out docs/images/autoscaling.png    # needs helm: make deploy-tools

Nothing runs here but arithmetic, one step a second. Thresholds, bounds and policies are read from the ScaledObject that
helm renders. The rule is that of Kubernetes' HorizontalPodAutoscaler, version 2: the larger of the metrics' wishes, a
tolerance of 10 %, a window to be stable in, policies, and a period of 15 s. A worker takes ``start_s`` until it
answers; whoever comes or goes stalls all partitions for ``rebalance_s``, which is more than it does. Each of P
partitions has 1/P of the requests and one worker, so of N workers the fullest has ceil(P / N).

The capacity is half of what two workers were measured to answer, broker and load on the same two cores
(docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

DAY_S: Final = 24 * 3600
SYNC_S: Final = 15
TOLERANCE: Final = 0.1
LOW, HIGH = 1_000.0, 200_000.0


class Rules(NamedTuple):
    """What the ScaledObject says, in seconds, records and workers."""

    least: int
    most: int
    drain_s: int
    lag_threshold: int
    up: tuple[dict[str, Any], ...]
    down: tuple[dict[str, Any], ...]
    down_window_s: int


class World(NamedTuple):
    """What is simulated: answers a second of a worker, partitions, times to start and to move partitions."""

    capacity: float
    partitions: int
    start_s: int = 20
    rebalance_s: int = 3


class Second(NamedTuple):
    """One second of the day."""

    rate: float
    lag: float
    workers: int
    wanted: int


def rules_of(scaled: dict[str, Any], capacity: int) -> Rules:
    """The rules of a rendered ScaledObject."""
    spec = scaled["spec"]
    _, lag = spec["triggers"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Rules(
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        drain_s=round(int(lag["metadata"]["lagThreshold"]) / capacity),
        lag_threshold=int(lag["metadata"]["lagThreshold"]),
        up=tuple(behavior["scaleUp"]["policies"]),
        down=tuple(behavior["scaleDown"]["policies"]),
        down_window_s=behavior["scaleDown"]["stabilizationWindowSeconds"],
    )


def rate_at(second: int) -> float:
    """Requests a second: a night of LOW, a peak of HIGH at 15:00, geometric in between, and a spike at 10:00."""
    day = 0.5 - 0.5 * math.cos(2 * math.pi * ((second / DAY_S - 3 / 24) % 1))
    spike = 3.0 if 10 * 3600 <= second < 10 * 3600 + 600 else 1.0
    return float(min(HIGH, LOW * (HIGH / LOW) ** day * spike))


def even(needed: float, partitions: int) -> int:
    """The fewest workers of which the fullest has no more partitions than ``needed`` workers would allow."""
    return math.ceil(partitions / math.floor(partitions / min(max(needed, 1e-9), partitions)))


def answered_by(workers: int, world: World) -> float:
    """Answers a second of ``workers`` where every partition has as many requests: the fullest worker decides."""
    members = min(workers, world.partitions)
    return world.capacity * world.partitions / math.ceil(world.partitions / members)


def simulate(rules: Rules, world: World, seconds: int = DAY_S) -> list[Second]:
    """The day, second by second, from one with the least workers and no lag."""
    lag, ready, stalled = 0.0, rules.least, 0
    starting: deque[int] = deque()
    wishes: deque[tuple[int, int]] = deque()
    changes: list[tuple[int, int]] = []
    rates: deque[float] = deque(maxlen=120)
    told: list[Second] = []
    wanted = rules.least
    for now in range(seconds):
        rate = rate_at(now)
        while starting and starting[0] <= now:
            starting.popleft()
            ready, stalled = ready + 1, world.rebalance_s
        answers = 0.0 if stalled else min(lag + rate, answered_by(ready, world))
        stalled = max(0, stalled - 1)
        lag = max(0.0, lag + rate - answers)
        rates.append(rate)
        if now % SYNC_S == 0:
            there = ready + len(starting)
            mean = sum(rates) / len(rates)
            needed = (lag / rules.drain_s + mean) / world.capacity
            value = max(even(needed, world.partitions), even(lag / rules.lag_threshold, world.partitions))
            wish = there if abs(value / there - 1) <= TOLERANCE else math.ceil(value)
            wish = min(max(wish, rules.least), rules.most)
            wishes.append((now, wish))
            while wishes[0][0] < now - rules.down_window_s:
                wishes.popleft()
            wanted = max(wish, min(there, max(one for _, one in wishes)))
            wanted = _within(rules, changes, now, there, wanted)
            if wanted > there:
                starting.extend([now + world.start_s] * (wanted - there))
            elif wanted < there:
                for _ in range(there - wanted):
                    if starting:
                        starting.pop()
                    else:
                        ready, stalled = ready - 1, world.rebalance_s
            if wanted != there:
                changes.append((now, wanted - there))
        told.append(Second(rate, lag, ready, wanted))
    return told


def _within(rules: Rules, changes: list[tuple[int, int]], now: int, there: int, wanted: int) -> int:
    """``wanted`` as far as the policies of the direction allow: upwards the largest of them, downwards too."""
    up = wanted > there
    allowed: list[int] = []
    for policy in rules.up if up else rules.down:
        moved = sum(change for at, change in changes if at > now - policy["periodSeconds"] and (change > 0) == up)
        begun = there - moved
        if policy["type"] == "Pods":
            allowed.append(begun + policy["value"] if up else begun - policy["value"])
        else:
            part = begun * policy["value"] / 100
            allowed.append(math.ceil(begun + part) if up else int(begun - part))
    return min(wanted, max(allowed)) if up else max(wanted, min(allowed))


def longest_wait_s(told: list[Second], world: World) -> float:
    """The longest time that a request waits, by the lag and what is answered a second."""
    return max(one.lag / answered_by(one.workers, world) for one in told)


def draw(days: list[tuple[list[Second], Rules, World]], path: Path) -> None:
    """Draw requests and what workers can answer, lag, and workers, over the day; a column for each of ``days``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        3, len(days), sharex=True, sharey="row", figsize=(6 * len(days), 7.5), constrained_layout=True, squeeze=False
    )
    hours = [second / 3600 for second in range(DAY_S)]
    for (told, rules, world), (above, middle, below) in zip(days, axes.T, strict=True):
        above.set_title(f"{world.partitions} partitions")
        above.plot(hours, [one.rate for one in told], label="requests a second")
        above.plot(hours, [answered_by(one.workers, world) for one in told], label="workers can answer", alpha=0.7)
        middle.plot(hours, [one.lag for one in told], color="tab:red")
        middle.set_yscale("symlog", linthresh=1000)
        below.step(hours, [one.workers for one in told], label="workers that answer")
        below.axhline(rules.most, linestyle=":", color="gray", label="most")
        below.set_xlabel("hour of the day")
        below.set_xlim(0, 24)
        below.set_xticks(range(0, 25, 3))
        above.legend(loc="upper left", fontsize="small")
        below.legend(loc="center left", fontsize="small")
    axes[1, 0].set_ylim(bottom=0)
    for axis, name in zip(axes[:, 0], ("a second", "lag, requests", "workers"), strict=True):
        axis.set_ylabel(name)
    figure.suptitle(f"A day under KEDA, simulated: {days[0][2].capacity:,.0f} answers a second of each worker")
    figure.savefig(path, dpi=100)


def scaled_object(capacity: int, partitions: int) -> dict[str, Any]:
    """What helm renders for workers of ``capacity``, as many as ``partitions`` at most."""
    from tests.support.charts import of_kind, rendered

    counts = f"keda.maxReplicas={partitions},settings.topics.partitions={partitions},worker.replicas=1"
    return of_kind(rendered("all", "--set", f"{counts},keda.capacity={capacity}"), "ScaledObject")[0]


def main() -> None:
    """Simulate the day for each number of partitions, print what became of it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=62_000, help="answers a second of one worker")
    parser.add_argument("--partitions", type=int, nargs="+", default=[12, 3])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    days = []
    print("| partitions | workers | worker hours | changes | largest lag | longest wait | time with waits over 10 s |")
    print("|---|---|---|---|---|---|---|")
    for partitions in given.partitions:
        rules = rules_of(scaled_object(given.capacity, partitions), given.capacity)
        world = World(given.capacity, partitions)
        told = simulate(rules, world)
        counts = [one.workers for one in told]
        changes = sum(one != before for before, one in pairwise(counts))
        late = sum(one.lag > 10 * answered_by(one.workers, world) for one in told) / len(told)
        print(
            f"| {partitions} | {min(counts)} to {max(counts)} | {sum(counts) / 3600:.1f} | {changes} "
            f"| {max(one.lag for one in told):,.0f} | {longest_wait_s(told, world):,.0f} s | {100 * late:.2f} % |"
        )
        days.append((told, rules, world))
    draw(days, given.out)


if __name__ == "__main__":
    main()
