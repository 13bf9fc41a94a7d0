"""`headrace rank`: one process of a training, started by the command or trainer that trains and by nobody else.

Ranks as processes that have the settings of the command that starts them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from headrace.commands.common import Invocation, cluster_of, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    import typer

    from headrace.model.places import Places
    from headrace.trainer.settings import TrainerSettings
    from headrace.trainer.training_run import Launch


def rank(ctx: typer.Context) -> None:
    """Take part in a training. What to do, and how to meet the other ranks, is told by the standard input."""
    import msgspec

    from headrace.core.errors import UserError, frames_of, words_of
    from headrace.files.table import Reading
    from headrace.kafka.interface import KafkaError
    from headrace.process import logs
    from headrace.security.private_folder import keep_what_matplotlib_caches

    keep_what_matplotlib_caches(os.environ)
    from headrace.learning.data.split import Splits
    from headrace.learning.distributed.job import TopicSource
    from headrace.learning.distributed.rank import run
    from headrace.learning.distributed.rendezvous import RANK_FAILED, Assignment, join

    settings = settings_from(ctx).settings
    logs.configure(sys.stderr, level=settings.log.level, form="json")
    try:
        told = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(
            f"the standard input holds no assignment of a rank ({error}). Ranks are started by `headrace train --ranks`"
            " and `headrace trainer`."
        ) from error
    cluster = cluster_of(settings) if isinstance(told.job.source, TopicSource) else None
    try:
        exchange = join(told)
        logs.event("rank.started", rank=exchange.rank, world=exchange.world, pid=os.getpid())
        run(
            told.job,
            cluster,
            exchange,
            trusted=settings.signing.trusted,
            splits=Splits(settings.trainer.split_key, settings.trainer.previous_split_key),
            places=settings.places(),
            holdout=settings.gate.holdout,
            holdout_reading=Reading(settings.gate.holdout_delimiter, settings.gate.holdout_encoding),
        )
    except (UserError, KafkaError) as error:
        lasting = not (isinstance(error, KafkaError) and error.retriable)
        logs.event(RANK_FAILED, level="error", error=str(error), lasting=lasting)
        raise typer.Exit(1) from error
    except Exception as error:
        # What a restart may mend: most often another rank has died, and the exchange with it.
        # The trainer puts the reason into a record and logs the rest, so neither has the words of others.
        logs.event(RANK_FAILED, level="error", error=words_of(error), lasting=False, traceback=frames_of(error))
        raise typer.Exit(1) from error
    # All is written and every rank knows it. What gloo's threads do at a usual end aborts the process now and then,
    # which would count as a death, and all would be trained again.
    logging.shutdown()
    os._exit(0)


# Of an event that a rank logs: what the log of this process adds itself.
_OUR_OWN = ("time", "level", "event")


def launcher(
    ctx: typer.Context, bootstrap: str | None, settings: TrainerSettings, places: Places, node: int = 0
) -> Launch:
    """What starts the ranks of a job on machine ``node``. Their events go to this log too.

    ``bootstrap`` is the command's own option. ``places`` are those where the files of the training may lie.
    """
    from headrace.learning.distributed.job import Job, Outcome
    from headrace.learning.distributed.launch import Nodes, launch
    from headrace.security.private_folder import private_folder

    given = ctx.ensure_object(Invocation)
    program = ["headrace"]
    if given.file is not None:
        program += ["--config", str(given.file)]
    for assignment in given.sets:
        program += ["--set", assignment]
    if (address := bootstrap or given.bootstrap) is not None:
        program += ["--bootstrap", address]
    if given.log_level is not None:
        program += ["--log-level", given.log_level]
    # The command's own options, such as --store, are in them too.
    program += ["--set", allowing(places)]
    folder = private_folder(given.environ).folder("trainings")
    with folder.descriptor():
        pass  # said now, and not when the first training begins

    nodes = None
    if settings.nodes > 1 and settings.rendezvous is not None and settings.address is not None:
        nodes = Nodes(count=settings.nodes, number=node, endpoint=settings.rendezvous, address=settings.address)

    async def start(job: Job) -> Outcome:
        return await launch(
            job,
            ranks=settings.ranks,
            program=program,
            environ=given.environ,
            folder=folder,
            places=places,
            nodes=nodes,
            restarts=settings.max_restarts,
            on_event=_relay,
        )

    return start


def allowing(places: Places) -> str:
    """What gives ``places`` to a rank, for its option ``--set``."""
    return f"store.allowed={','.join(place.uri for place in places.allowed)}"


def _relay(said: Mapping[str, Any]) -> None:
    from headrace.process.logs import event

    fields = {name: value for name, value in said.items() if name not in _OUR_OWN}
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    event(said["event"], level=said.get("level", "info"), **fields)
