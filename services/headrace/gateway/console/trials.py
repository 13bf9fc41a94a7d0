"""Try: one text, what the workers answer to it and why, and beside it what the challenger would say.

The text goes the way of every request, so the answer is what programs get. The challenger answers no requests; its
artifact is opened here.
"""

from __future__ import annotations

import asyncio
import unicodedata
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from starlette.responses import Response

from headrace.client import Client
from headrace.client.arguments import ArgumentError, NoAnswerError
from headrace.core.clock import Clock
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import ANY, Call, Endpoint
from headrace.gateway.console.models import ModelsView
from headrace.gateway.problems import ProblemError, invalid
from headrace.kafka.interface import Cluster
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.errors import ArtifactError
from headrace.model.explanation import explainer_of
from headrace.registry.versions import load_version
from headrace_schemas.errors import WireError
from headrace_schemas.records import Explanation, ModelVersion, Score

if TYPE_CHECKING:
    from headrace.config import Settings

ANSWER_S = 15.0
RANKING = 5
CHALLENGER = "challenger"


class Text(msgspec.Struct, frozen=True):
    """What is tried."""

    text: str


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one version says of the text."""

    version: str
    status: str
    label: str | None = None
    score: float | None = None
    ranking: tuple[Score, ...] = ()
    explanation: Explanation | None = None
    took_ms: float | None = None
    reason: str | None = None


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """``text`` is in normal form C, whose code points explanations count. ``alone`` says why nobody is beside."""

    text: str
    answered: Said
    beside: Said | None = None
    alone: str | None = None


class _Opened(NamedTuple):
    version: str
    backend: Backend


class Trials:
    """Connects by use; keeps one challenger open."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Clock, models: ModelsView) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._models = models
        self._client: Client | None = None
        self._lock = asyncio.Lock()
        self._opened: _Opened | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (Endpoint("POST", "/api/try", ANY, self._try),)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.__aexit__(None, None, None)

    async def _try(self, call: Call) -> Response:
        text = unicodedata.normalize("NFC", (await call.body(Text)).text)
        client = await self._connected()
        begun_s = self._clock.monotonic()
        try:
            result = await client.classify(text, timeout=ANSWER_S, explain=True)
        except NoAnswerError as error:
            raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, "no-answer", str(error)) from None
        except (WireError, ArgumentError) as error:
            raise invalid(str(error)) from None
        answered = Said(
            version=result.version,
            status=result.status.value,
            label=result.label,
            score=result.score,
            ranking=result.ranking[:RANKING],
            explanation=result.explanation,
            took_ms=(self._clock.monotonic() - begun_s) * 1000,
            reason=result.reason,
        )
        beside, alone = await self._challenger(text, result.version)
        return json_response(Tried(text, answered, beside, alone))

    async def _challenger(self, text: str, answered_by: str) -> tuple[Said | None, str | None]:
        log = await self._models.log()
        record = log.resolve(self._models.name, CHALLENGER)
        if record is None:
            return None, "There is no challenger."
        if record.version == answered_by:
            return None, "The challenger is the version that answered."
        try:
            return await asyncio.to_thread(self._say, record, text), None
        except ArtifactError as error:
            return None, f"The challenger {record.version} can't be opened here: {error}"

    def _say(self, record: ModelVersion, text: str) -> Said:
        """What a version says, on a thread. Raises ArtifactError."""
        opened = self._opened
        if opened is None or opened.version != record.version:
            artifact = load_version(record, self._settings.signing.trusted, self._settings.places())
            opened = self._opened = _Opened(record.version, open_backend("cpu", artifact))
        artifact = opened.backend.artifact
        answers = opened.backend.classify([text.encode()], RANKING)
        ranking = tuple(
            Score(artifact.labels[place], float(score))
            for place, score in zip(answers.ranking[0], answers.ranking_scores[0], strict=True)
        )
        score, threshold = float(answers.scores[0]), artifact.about.threshold
        return Said(
            version=record.version,
            status="ok",
            label=None if threshold is not None and score < threshold else artifact.labels[answers.labels[0]],
            score=score,
            ranking=ranking,
            explanation=explainer_of(artifact).explain(text),
        )

    async def _connected(self) -> Client:
        async with self._lock:
            if self._client is None:
                names = self._settings.topics.names()
                client = Client(
                    self._cluster,
                    requests=names.requests,
                    results=names.results,
                    reviews=names.reviews,
                    shape=self._settings.requests,
                )
                await client.__aenter__()
                self._client = client
            return self._client
