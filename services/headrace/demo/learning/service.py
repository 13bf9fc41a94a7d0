"""The real `headrace trainer`, and `headrace models` by hand.

What the models topic says of a model, looked at until it says what is waited for.

Labelled texts with ids, published to be learnt from and erased again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec

from headrace.client.labels import Labelled
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.demo.children import Service, child, log_tail, run_to_its_end
from headrace.demo.setting import as_options, demo_settings
from headrace.kafka.settings import KafkaSettings
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Part
from headrace.learning.data.text_keys import text_keys
from headrace.model.artifact import Artifact
from headrace.registry.models_log import ModelsLog
from headrace.trainer.settings import TrainerSettings
from headrace_schemas.records import ModelVersion, Training, TrainingState, Verdict

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


CHAMPION = "champion"
LOOK_S = 0.1
LIMIT_S = 900.0


class TrainingEndedError(UserError):
    """A training failed, or had no end in LIMIT_S."""


class Made(msgspec.Struct, frozen=True):
    """A training that is done, its version, and what the gate says of it."""

    training: Training
    version: ModelVersion
    verdict: Verdict


async def training_begun(log: ModelsLog, name: str, before: str | None, clock: Clock) -> Training:
    """Wait for a training of model ``name`` with another id than ``before``. Raises TrainingEndedError."""
    until = clock.monotonic() + LIMIT_S
    while (found := log.trainings.get(name)) is None or found.id == before:
        await _look(log, until, "begun no training", clock)
    return found


async def made_by(training: Training, log: ModelsLog, clock: Clock) -> Made:
    """Wait for the end of ``training``. Raises TrainingEndedError when it fails."""
    until = clock.monotonic() + LIMIT_S
    while (found := log.trainings[training.name]).state is TrainingState.RUNNING:
        await _look(log, until, f"not ended training {training.id}", clock)
    if found.version is None:
        raise TrainingEndedError(f"Training {found.id} failed: {found.error}")
    key = (found.name, found.version)
    return Made(found, log.versions[key], log.verdicts[key])


async def _look(log: ModelsLog, until: float, missed: str, clock: Clock) -> None:
    if clock.monotonic() > until:
        raise TrainingEndedError(f"The trainer has {missed} in {LIMIT_S:.0f} s.")
    await clock.sleep(LOOK_S)
    await log.refresh()


class Keyed(Labelled, frozen=True):
    """A labelled text with its ``key``, which makes two texts the same to training."""

    key: bytes


def in_two_parts(rows: Rows, share: float, random: Random) -> tuple[list[Keyed], list[Keyed]]:
    """Give each of ``rows`` an id and divide them by chance: the first part is ``share`` of all."""
    columns = zip(rows.texts, rows.labels, text_keys(rows.texts), strict=True)
    labelled = [Keyed(f"text-{number}", *columns) for number, columns in enumerate(columns)]
    random.shuffle(labelled)
    first = round(share * len(labelled))
    return labelled[:first], labelled[first:]


def to_forget(learnt: Sequence[Keyed], coming: Sequence[Keyed], version: Artifact) -> list[Keyed]:
    """Texts whose erasure shows most: one that ``version`` was trained on, and one that it quotes to test itself.

    With each go all that are the same text, of those ``learnt`` and of those that are ``coming``.
    """
    labelled = [*learnt, *coming]
    quoted = ({one.key for one in labelled if one.text.startswith(canary.text)} for canary in version.about.canaries)
    # Where several texts begin alike nobody can say which of them is quoted.
    forgotten = next((keys for keys in quoted if len(keys) == 1), set[bytes]())
    forgotten |= {next(one.key for one in learnt if UNKEYED.part_of(one.key) is Part.TRAIN)}
    return [one for one in labelled if one.key in forgotten]


def quotes(version: Artifact, texts: Iterable[Labelled]) -> int:
    """How many canaries of ``version`` are the beginning of one of ``texts``."""
    return sum(any(one.text.startswith(canary.text) for one in texts) for canary in version.about.canaries)
