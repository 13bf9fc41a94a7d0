"""What the models topic says of a model, looked at until it says what is waited for."""

from __future__ import annotations

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.registry.models_log import ModelsLog
from headrace_schemas.records import ModelVersion, Training, TrainingState, Verdict

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
