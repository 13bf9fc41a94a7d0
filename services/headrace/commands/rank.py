"""`headrace rank`: one process of a training, started by torch.distributed.run and by nobody else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Invocation, cluster_of, settings_from

if TYPE_CHECKING:
    from headrace.training.ranks.exchange import Exchange


def rank(ctx: typer.Context, job: Annotated[Path, typer.Argument(help="The job as JSON.")]) -> None:
    """Take part in a training. Which rank this is, and how to reach the others, torchrun says by the environment."""
    import msgspec

    from headrace import logs
    from headrace.core.errors import UserError
    from headrace.kafka.errors import KafkaError
    from headrace.lifecycle import die_with_parent
    from headrace.training.ranks.job import Job, TopicSource
    from headrace.training.ranks.output import RANK_FAILED
    from headrace.training.ranks.rank import run
    from headrace.training.splitting import Splits

    die_with_parent()
    settings = settings_from(ctx).settings
    logs.configure(sys.stderr, level=settings.log.level, form="json")
    told = msgspec.json.decode(job.read_bytes(), type=Job)
    cluster = cluster_of(settings) if isinstance(told.source, TopicSource) else None
    try:
        with _joined(ctx.ensure_object(Invocation).environ) as exchange:
            logs.event("rank.started", rank=exchange.rank, world=exchange.world, pid=os.getpid())
            splits = Splits(settings.trainer.split_key, settings.trainer.previous_split_key)
            run(told, cluster, exchange, trusted=settings.signing.trusted, splits=splits, holdout=settings.gate.holdout)
    except (UserError, KafkaError) as error:
        lasting = not (isinstance(error, KafkaError) and error.retriable)
        logs.event(RANK_FAILED, level="error", error=str(error), lasting=lasting)
        raise typer.Exit(1) from error
    except Exception as error:
        # What a restart may mend: most often another rank has died, and the exchange with it.
        logs.event(RANK_FAILED, level="error", error=repr(error), lasting=False, exception=error)
        raise typer.Exit(1) from error
    # All is written and every rank knows it. What gloo's threads do at a usual end aborts the process now and then,
    # which torchrun would take for a death, and train again.
    logging.shutdown()
    os._exit(0)


@contextmanager
def _joined(environ: Mapping[str, str]) -> Iterator[Exchange]:
    """The exchange with the other ranks over gloo, if there are any."""
    from torch import distributed

    from headrace.training.ranks.exchange import Alone, Collective

    if environ.get("WORLD_SIZE", "1") == "1":
        yield Alone()
        return
    distributed.init_process_group("gloo")
    yield Collective()
