"""`headrace rank`: one process of a training, started by the command or trainer that trains and by nobody else."""

from __future__ import annotations

import logging
import os
import sys

import typer

from headrace.commands.common import cluster_of, settings_from


def rank(ctx: typer.Context) -> None:
    """Take part in a training. What to do, and how to meet the other ranks, is told by the standard input."""
    import msgspec

    from headrace import logs
    from headrace.core.errors import UserError, frames_of, words_of
    from headrace.files.table import Reading
    from headrace.kafka.errors import KafkaError
    from headrace.security.kept_folder import keep_what_matplotlib_caches

    keep_what_matplotlib_caches(os.environ)
    from headrace.training.ranks.job import TopicSource
    from headrace.training.ranks.output import RANK_FAILED
    from headrace.training.ranks.rank import run
    from headrace.training.ranks.rendezvous import Assignment, join
    from headrace.training.splitting import Splits

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
