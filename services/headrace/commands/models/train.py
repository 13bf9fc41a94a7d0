"""`headrace models train` and `reproduce`: order a training, and train a version again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, By, begin, open_models, remark, say, who
from headrace.commands.models.show import time_of
from headrace.commands.trainer import launcher
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.process.lifecycle import EXIT_LATE
from headrace.process.logs import PATIENCE_S, Reminder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.config import Settings
    from headrace.core.clock import Clock
    from headrace.learning.distributed.job import Job
    from headrace.model.places import Places
    from headrace.registry.compacted_topics import ModelsLog
    from headrace.trainer.reproduce import Rows
    from headrace.trainer.training_run import Launch
    from headrace_schemas.records import Lineage, ModelVersion, Training, TrainingOrder

LOOK_S = 1.0
IDS_SHOWN = 5


class OrderFailedError(UserError):
    """The training that was ordered failed."""


class OrderLateError(UserError):
    """The training that was ordered has not ended in time."""

    exit_code = EXIT_LATE


def train(
    ctx: typer.Context,
    *,
    now: Annotated[bool, typer.Option("--now", help="Begin a training now, whatever the rules say.")] = False,
    reason: Annotated[str, typer.Option(help="The reason, which is kept in the training's record.")] = "by hand",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the training.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help=f"Wait no longer, and end with {EXIT_LATE} then."),
    ] = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Order a training on the labels of now. A running `headrace trainer` begins it when no other training runs."""
    if not now:
        raise typer.BadParameter("trainings begin by the trainer's rules; --now orders one.")
    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout says how long --wait waits: give both.")
    settings = begin(ctx, bootstrap)
    ended = asyncio.run(_order(settings, reason, who(by), wait=wait, limit_s=timeout))
    if ended is None:
        say(f"{settings.worker.model_name}: a training is ordered")
    elif ended.error is not None:
        raise OrderFailedError(f"Training {ended.id} failed: {ended.error}")
    else:
        say(f"{ended.name}: trained {ended.version}")


def reproduce(
    ctx: typer.Context,
    version: Annotated[
        str, typer.Argument(help="The version: its name, the beginning of it or of its hash, or an alias.")
    ],
    *,
    bootstrap: Bootstrap = None,
) -> None:
    """Train a version again from its own offsets and recipe, and say whether the weights are the same.

    Nothing is published. The exit code is 0 when they are the same, and 1 when they are not or labels are gone.
    """
    settings = begin(ctx, bootstrap)
    if not asyncio.run(_reproduce(ctx, settings, version, bootstrap)):
        raise typer.Exit(1)


async def _order(settings: Settings, reason: str, by: str, *, wait: bool, limit_s: float | None) -> Training | None:
    from headrace.core.clock import SystemClock
    from headrace_schemas.records import TrainingOrder

    clock = SystemClock()
    order = TrainingOrder(name=settings.worker.model_name, ordered_at_ms=clock.now_ms(), reason=reason, by=by)
    async with open_models(settings) as models:
        await models.writer.publish([order])
        if not wait:
            return None
        return await answer_to(order, models.log, clock, limit_s=limit_s, tell=remark)


async def answer_to(
    order: TrainingOrder, log: ModelsLog, clock: Clock, *, limit_s: float | None, tell: Callable[[str], None]
) -> Training:
    """Wait for the end of the training that answers ``order``. When it takes long, ``tell`` gets what it waits for.

    Raises OrderLateError ``limit_s`` seconds from now.
    """
    begun_s = clock.monotonic()
    reminder = Reminder()
    while (ended := _ended(order, log)) is None:
        now_s = clock.monotonic()
        waited_for = _waited_for(order, log)
        if limit_s is not None and now_s - begun_s >= limit_s:
            raise OrderLateError(f"Not trained within {limit_s:g} s: {waited_for}. The order stands.")
        if now_s - begun_s >= PATIENCE_S and reminder.due(waited_for, now_s):
            tell(f"waiting: {waited_for}")
        await clock.sleep(LOOK_S if limit_s is None else min(LOOK_S, begun_s + limit_s - now_s))
        await log.refresh()
    return ended


def _waited_for(order: TrainingOrder, log: ModelsLog) -> str:
    from headrace_schemas.records import TrainingState

    last = log.trainings.get(order.name)
    if last is None or last.state is not TrainingState.RUNNING:
        return "no trainer has taken the order yet; `headrace trainer` starts one"
    running = f"training {last.id} runs since {time_of(last.begun_at_ms)}"
    if last.begun_at_ms >= order.ordered_at_ms:
        return running
    return f"{running}, and the ordered one comes after it; without a trainer `headrace trainer` goes on with it"


def _ended(order: TrainingOrder, log: ModelsLog) -> Training | None:
    """The training that began for ``order``, or for a later one, once it has ended."""
    from headrace_schemas.records import TrainingState

    last = log.trainings.get(order.name)
    if last is None or last.begun_at_ms < order.ordered_at_ms or last.state is TrainingState.RUNNING:
        return None
    return last


async def _reproduce(ctx: typer.Context, settings: Settings, wanted: str, bootstrap: str | None) -> bool:
    import msgspec

    from headrace.learning.data.split import Splits
    from headrace.model.places import places_of
    from headrace.model.signing import verify
    from headrace.registry.versions import find_version
    from headrace.security.private_folder import temporary_folder
    from headrace.trainer import reproduce

    async with open_models(settings) as models:
        version = find_version(models.log, settings.worker.model_name, wanted)
        verify(version, settings.signing.trusted)
        lineage = reproduce.lineage_of(version)
        reproduce.check_source(version, lineage, settings.topics.names().labels)
        source = reproduce.source_of(lineage, settings.trainer, settings.topics.names().machine_labels)
        splits = Splits(settings.trainer.split_key, settings.trainer.previous_split_key)
        splitting = reproduce.splitting_of(version, splits)
        rows = await reproduce.compare_rows(models.cluster, source, lineage.digest, splitting)
    for line in describe(version, lineage, rows):
        say(line)
    if not rows.equal:
        return False
    # Other machines only help with a running training, so all ranks of this one are here.
    ranks = msgspec.structs.replace(settings.trainer, ranks=lineage.ranks, nodes=1)
    with temporary_folder("headrace-reproduce-") as made:
        folder = str(made)
        places = places_of((folder,), "a temporary folder")
        job = reproduce.job_again(version, source, folder=folder, holdout=settings.gate.holdout)
        return await _train_again(version, job, places, launcher(ctx, bootstrap, ranks, places))


def describe(version: ModelVersion, lineage: Lineage, rows: Rows) -> list[str]:
    """What the log still has of the version's labels, in lines."""
    ranks = quantity(lineage.ranks, "rank")
    lines = [f"{version.version}: trained on {quantity(lineage.rows, 'row')} of {lineage.source} by {ranks}"]
    if rows.retention:
        lines.append(f"retention deleted {quantity(rows.retention, 'offset')} of its snapshot")
    if rows.equal:
        lines.append("all its labels are there; training again")
        return lines
    lines.append(
        f"its labels are not all there any more, by trainer.labels and trainer.max_text_bytes as they are set now: "
        f"{quantity(rows.rows, 'row')}, so nothing is trained"
    )
    for verb, ids in (("erased", rows.erased), ("labelled anew or for the first time", rows.labelled)):
        if ids:
            lines.append(f"{verb} since, {len(ids):,} ids: {_some(ids)}")
    if rows.machine_erased:
        lines.append(f"erased since, {quantity(rows.machine_erased, 'label')} of teachers")
    elif lineage.machine_rows and rows.machine_rows != lineage.machine_rows:
        then, now = quantity(lineage.machine_rows, "row"), quantity(rows.machine_rows, "row")
        lines.append(f"teachers' labels made {then} then and make {now} now: some were replaced or erased since")
    return lines


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:IDS_SHOWN]) + (", ..." if len(ids) > IDS_SHOWN else "")


async def _train_again(version: ModelVersion, job: Job, places: Places, launch: Launch) -> bool:
    from headrace.model.artifact import load, weights_digest

    outcome = await launch(job)
    found = weights_digest(load(places.locate(outcome.uri), outcome.sha256, outcome.size).network)
    equal = found == version.weights_sha256
    say(f"the weights are {'the same' if equal else 'others'}: {found} now, {version.weights_sha256} then")
    return equal
