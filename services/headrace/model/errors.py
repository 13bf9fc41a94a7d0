"""What is wrong with an artifact, or with where it lies: a code that never changes, and our own words."""

from __future__ import annotations

import enum

from headrace.core.errors import UserError


class ArtifactError(UserError):
    """A file is not an artifact that can be used: damaged, altered, hostile, or made for another headrace."""


class StoreFault(enum.StrEnum):
    """Why a store did not do what was asked."""

    REFUSED = "store-refused"
    """The URI is none that is opened here, or lies outside of every allowed place."""
    ABSENT = "store-absent"
    DENIED = "store-denied"
    AWAY = "store-away"
    TOO_LARGE = "store-too-large"
    NO_DRIVER = "store-no-driver"
    FAILED = "store-failed"


class StoreError(ArtifactError):
    """The store can't be reached, refuses, or lacks what was asked for.

    The message is made of our own words, the URI and ``fault``: it goes into records and logs, and what a driver says
    may hold anything, secrets too.
    """

    def __init__(self, message: str, fault: StoreFault) -> None:
        super().__init__(f"{message} ({fault.value})")
        self.fault = fault
