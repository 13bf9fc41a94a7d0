"""The sizes that compression tried for a version, from the file that the training left beside its artifact.

Nothing signs that file: it is shown, and nothing is decided by it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from headrace.gateway.calls import json_response
from headrace.gateway.console.access import ANY, Call, Endpoint
from headrace.gateway.console.models import ModelsView
from headrace.gateway.problems import conflict, not_found
from headrace.model import store
from headrace.model.artifact import beside
from headrace.model.errors import StoreError
from headrace.model.places import Location
from headrace.registry.versions import find_version

if TYPE_CHECKING:
    from headrace.config import Settings

MOST_BYTES = 1 << 20
MOST_POINTS = 500


class Score(msgspec.Struct, frozen=True):
    """A part of ``headrace.learning.compress.curve.Score``, as the three structs below are of theirs."""

    macro_f1: float
    size: int
    latency_us: float | None = None


class Point(msgspec.Struct, frozen=True):
    """A network that was tried; ``within`` says whether the budget allowed it."""

    tuning: str
    score: Score
    within: bool


class Budget(msgspec.Struct, frozen=True):
    """Points of macro-F1 that compression might cost."""

    points: float


class Curve(msgspec.Struct, frozen=True):
    """Everything that was tried, the network before, and what was taken."""

    budget: Budget
    original: Score
    chosen: Point
    points: list[Point]


class Compression:
    """Reads the curves of one configuration's store."""

    def __init__(self, settings: Settings, models: ModelsView) -> None:
        self._settings = settings
        self._models = models

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (Endpoint("GET", "/api/versions/{version}/curve", ANY, self._curve),)

    async def _curve(self, call: Call) -> Response:
        version = find_version(await self._models.log(), self._models.name, call.request.path_params["version"])
        try:
            table, _ = beside(self._settings.places().locate(version.uri))
            read = await asyncio.to_thread(_read_if_there, table)
        except StoreError as error:
            raise conflict(f"The curve can't be read here: {error}") from None
        if read is None:
            raise not_found("No curve lies beside this version: nothing was compressed.")
        try:
            curve = msgspec.json.decode(read, type=Curve)
        except msgspec.DecodeError:
            raise conflict("What lies beside this version is no curve.") from None
        return json_response(msgspec.structs.replace(curve, points=curve.points[:MOST_POINTS]))


def _read_if_there(where: Location) -> bytes | None:
    return None if store.size_of(where) is None else store.read(where, MOST_BYTES)
