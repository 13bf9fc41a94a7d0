"""Stops a worker whose model fails on everything, before it dead-letters a topic of good requests."""

from __future__ import annotations

import enum


class Suspect(enum.StrEnum):
    """Whom a failing batch accuses, after the canary texts were tried."""

    INPUT = "input"
    MODEL = "model"


class Breaker:
    """Opens when the model stage fails on texts that it is known to answer.

    Only failures of the model stage are shown to it, never bad input. The canaries (texts that the version carries,
    with their labels) decide: if they are answered, some request is to blame and is looked for; if not,
    the model is, and after ``threshold`` such failures in a row the breaker opens. It closes again
    when the canaries are answered, so a rollback lets the worker go on by itself.
    """

    def __init__(self, threshold: int = 3) -> None:
        self._threshold = threshold
        self._failures = 0

    @property
    def open(self) -> bool:
        return self._failures >= self._threshold

    def failed(self, *, canaries_answered: bool) -> Suspect:
        """A batch failed in the model stage and the canaries were tried."""
        if canaries_answered:
            self._failures = 0
            return Suspect.INPUT
        self._failures += 1
        return Suspect.MODEL

    def succeeded(self) -> None:
        self._failures = 0
