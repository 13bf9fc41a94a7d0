"""The real `headrace trainer`, and `headrace models` by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from headrace.config import Settings
from headrace.demo.children import Service, child, log_tail, run_to_its_end
from headrace.demo.learning.versions import CHAMPION
from headrace.demo.setting import as_options, demo_settings
from headrace.kafka.settings import KafkaSettings
from headrace.training.settings import TrainerSettings

RANKS = 2
EPOCHS = 6
SETTLE_S = 1.0
# Its ranks have ten seconds of it.
TRAINER_GRACE_S = 15.0
COMMAND_GRACE_S = 2.0


def learning_settings(kafka: KafkaSettings, prefix: str, store: Path) -> Settings:
    """Everything that the trainer and the workers are told: these follow the alias that the trainer moves.

    A training begins as soon as labels have been quiet for SETTLE_S, and is short; all else is as always.
    """
    settings = demo_settings(kafka, prefix, CHAMPION)
    trainer = TrainerSettings(
        group=f"{prefix}trainer", store=str(store), ranks=RANKS, epochs=EPOCHS, settle=SETTLE_S, least_rows=1
    )
    return msgspec.structs.replace(settings, trainer=trainer)


@asynccontextmanager
async def trainer(settings: Settings, *, environ: Mapping[str, str], folder: Path) -> AsyncIterator[Service]:
    """Run a trainer with ``settings`` while the block runs."""
    log = folder / "trainer.log"
    command = [*as_options(settings), "trainer"]
    async with child(command, environ=environ, folder=folder, log=log, grace_s=TRAINER_GRACE_S) as process:
        yield Service("`headrace trainer`", process, log)


async def by_hand(settings: Settings, *command: str, environ: Mapping[str, str], folder: Path) -> str:
    """Run `headrace models` and return the last line that it prints. Raises ChildEndedError when it fails."""
    log = folder / f"models-{command[0]}.log"
    arguments = [*as_options(settings), "models", *command]
    name = f"`headrace models {' '.join(command)}`"
    await run_to_its_end(name, arguments, environ=environ, folder=folder, log=log, grace_s=COMMAND_GRACE_S)
    return log_tail(log).rpartition("\n")[2]
