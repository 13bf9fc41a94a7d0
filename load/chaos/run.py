"""One run: topics of its own, workers, a stream, the fault, and the check of its history; and the table of all runs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from headrace.core.errors import with_notes
from headrace_load.processes import headrace, slowness, within
from headrace_load.target import make_topics, prefixed
from headrace_load.workload.texts import load_texts
from load.chaos.checker import LOST, Checked, History, check, read_answers, read_requests, together
from load.chaos.cluster import Cluster
from load.chaos.watched import watching
from load.chaos.world import PARTITIONS, TEXTS, Fault, Workers, World, streaming, workload

WARM = 400
"""Answers before the fault begins."""
AFTER_S = 2.0
STRIKE_S = 300.0
ANSWERS_S = 60.0
SAID_S = 15.0
"""Where some are said to be lost, not all can come."""
SEEN_S = 12.0
"""Longer than an alert waits before it fires, where Prometheus is hastened; drift's waits longer."""


class Outcome(Struct, frozen=True, kw_only=True):
    """A run as the table needs it. ``error`` is why it counts as failed, None when all held; ``seconds`` it took.

    Where it was watched, ``alerts`` fired from the fault on, and ``alerts_before`` when it began.
    """

    fault: str
    seed: int
    checked: Checked | None
    notes: tuple[str, ...]
    error: str | None
    seconds: float
    alerts: tuple[str, ...] = ()
    alerts_before: tuple[str, ...] = ()


class Seen:
    """What a Prometheus has seen of a run."""

    def __init__(self) -> None:
        self.alerts: frozenset[str] = frozenset()
        self.before: frozenset[str] = frozenset()


async def run(
    fault: Fault,
    seed: int,
    cluster: Cluster,
    *,
    model: Path,
    folder: Path,
    patience_s: float = ANSWERS_S,
    watched: bool = False,
) -> Outcome:
    """Run ``fault`` once. Files of the run are in ``folder``, which is there; ``model`` is an artifact's file;
    answers that are missing are waited for as long as none has come for ``patience_s``. A run that is ``watched`` has
    a Prometheus beside it.

    Afterwards the cluster is whole again. What goes wrong is in the outcome, not raised.
    """
    begun = time.monotonic()
    notes: list[str] = []
    checked: Checked | None = None
    seen = Seen() if watched else None
    try:
        checked = await _run(fault, seed, cluster, model, folder, notes, patience_s, seen)
        error = _broken(fault, checked)
    except Exception as failure:  # noqa: BLE001 - one run that fails must not end the others
        error = _told(failure)
    finally:
        await cluster.whole()
    return Outcome(
        fault=fault.name,
        seed=seed,
        checked=checked,
        notes=tuple(notes),
        error=error,
        seconds=time.monotonic() - begun,
        alerts=tuple(sorted(seen.alerts)) if seen else (),
        alerts_before=tuple(sorted(seen.before)) if seen else (),
    )


async def _run(
    fault: Fault,
    seed: int,
    cluster: Cluster,
    model: Path,
    folder: Path,
    notes: list[str],
    patience_s: float,
    seen: Seen | None,
) -> Checked:
    name = f"{fault.name}-{seed}"
    system = prefixed(cluster.bootstrap, f"{name}.")
    await make_topics(system, PARTITIONS)
    # Faults make stores of their own beside it.
    store = folder / "published"
    if fault.follows:
        kept = {"HEADRACE_TRAINER__STORE": str(store), "HEADRACE_STORE__ALLOWED": str(folder)}
        await headrace("models", "publish", str(model), environment={**system.environment(), **kept})
    load = workload(fault.rate, seed)
    texts = folder / "texts.json"
    texts.write_bytes(msgspec.json.encode(load_texts(TEXTS, seed)))
    workers = Workers(
        msgspec.structs.replace(system, bootstrap=cluster.behind),
        folder,
        group=name,
        model="champion" if fault.follows else str(model),
        sets={"trainer.store": str(store), "store.allowed": str(folder), **fault.sets},
        program=fault.program,
    )
    try:
        await asyncio.gather(*(workers.start(f"w{number}") for number in range(fault.workers)))
        async with AsyncExitStack() as stack:
            watch = None if seen is None else await stack.enter_async_context(watching(folder))
            stream = await stack.enter_async_context(streaming(load, system, folder, texts))
            world = World(
                cluster=cluster,
                system=system,
                workers=workers,
                stream=stream,
                rng=random.Random(f"{fault.name} {seed}"),
                folder=folder,
                model=model,
            )
            await world.until(lambda: stream.answered >= WARM, f"the first {WARM} answers")
            await world.moment()
            world.begins()
            if seen is not None and watch is not None:
                seen.before = await watch.firing()
            try:
                async with within(STRIKE_S, "the end of the strike"):
                    await fault.strike(world)
            finally:
                notes += world.notes
            if fault.expect == "kept":
                await world.staffed()
            await world.wait(AFTER_S)
            sent = await stream.end()
            await stream.settle(patience_s * slowness() if fault.expect == "kept" else SAID_S)
            if seen is not None and watch is not None:
                await world.wait(SEEN_S)
                seen.alerts = await watch.firing(time.time() - world.began_us / 1e6)
            accepted, stopped = await stream.seen()
        if stopped is not None:
            notes.append("the reader stopped and said why")
            if fault.expect == "kept":
                raise AssertionError(stopped)
    finally:
        await workers.end()
    log, said = await read_answers(system)
    history = History(
        sent=sent,
        requests=together("offset", [*(requests for requests, _ in world.kept), await read_requests(system)]),
        log=together("position", [*(answers for _, answers in world.kept), log]),
        seen=accepted,
        said=np.concatenate([said, np.array(world.said, LOST)]),
        began_us=world.began_us,
    )
    return check(history)


def _told(failure: BaseException) -> str:
    """What went wrong, all of it."""
    if isinstance(failure, BaseExceptionGroup):
        return "; ".join(_told(one) for one in failure.exceptions)
    return f"{type(failure).__name__}: {with_notes(failure)}"


def _broken(fault: Fault, checked: Checked) -> str | None:
    if not (checked.kept if fault.expect == "kept" else checked.told):
        return f"the promise was broken: {checked.line()}"
    if fault.stall_s is not None and checked.stall_s > fault.stall_s:
        return f"a partition stood still for {checked.stall_s:.2f} s, more than {fault.stall_s:g} s"
    return None


BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEAD = (
    "| | fault | nodes | runs | requests | lost | said lost | raw repeats | seen repeats | longest stall s | "
    "recovery s | |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def table(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> str:
    """A row for each fault that was run: sums over its runs, and the longest stall and recovery among them."""
    lines = [HEAD]
    about = ""
    for fault in faults:
        runs = [outcome for outcome in outcomes if outcome.fault == fault.name]
        if runs:
            lines.append(_row(fault, runs, "" if fault.about == about else fault.about))
            about = fault.about
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """What all runs come to, in a sentence or two."""
    checked = [outcome.checked for outcome in outcomes if outcome.checked is not None]
    failed = [f"{outcome.fault} with seed {outcome.seed}" for outcome in outcomes if outcome.error is not None]
    kept = "All runs kept the promise." if not failed else f"Not kept: {', '.join(failed)}."
    return (
        f"{len({outcome.fault for outcome in outcomes})} faults, {len(outcomes)} runs of together "
        f"{sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes, "
        f"{sum(one.acknowledged for one in checked):,} requests, {sum(one.lost for one in checked)} lost, "
        f"{sum(one.seen_twice for one in checked)} seen twice. {kept}"
    )


def write_docs(page: Path, text: str) -> None:
    """Put ``text`` between the marks of ``page``. Raises ValueError when it has none."""
    found = page.read_text(encoding="utf-8")
    before, begin, rest = found.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END} to write the table between")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _row(fault: Fault, runs: Sequence[Outcome], about: str) -> str:
    checked = [outcome.checked for outcome in runs if outcome.checked is not None]
    failed = next((outcome.error for outcome in runs if outcome.error is not None), None)
    raw, other = sum(one.raw.equal for one in checked), sum(one.raw.other for one in checked)
    cells = (
        about,
        fault.title,
        fault.nodes,
        len(runs),
        f"{sum(one.acknowledged for one in checked):,}",
        sum(one.lost for one in checked),
        sum(one.said for one in checked),
        f"{raw:,}" if not other else f"{raw:,} and {other:,} that differ",
        sum(one.seen_twice for one in checked),
        f"{max((one.stall_s for one in checked), default=0.0):.1f}",
        f"{max((one.recovery_s for one in checked), default=0.0):.1f}",
        _notes(runs) if failed is None else f"**FAILED**: {failed.splitlines()[0]}",
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _notes(runs: Sequence[Outcome]) -> str:
    """What was noted, each thing once; of a random sequence each run had other faults."""
    return "; ".join(dict.fromkeys(note for outcome in runs for note in outcome.notes))
