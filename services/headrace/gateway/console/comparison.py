"""Two versions on the last requests: how often they agree, and texts that they answer differently.

Both are opened here and asked, so no second group of workers has to run. The texts are those of requests, which people
who label see in the queues, and operators in dead letters; erased ones are left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from headrace.client.suggestions import barred_texts
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import LABELLERS, OPERATORS, Call, Endpoint
from headrace.gateway.console.models import ModelsView
from headrace.gateway.problems import conflict
from headrace.kafka.interface import Cluster
from headrace.kafka.range_reader import read_topic
from headrace.learning.data.machine_labels import is_barred
from headrace.learning.data.validation import text_keys
from headrace.learning.evaluate import Answered, answer_scored
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import open_backend
from headrace.model.errors import ArtifactError
from headrace.registry.versions import find_version, floor_of, load_version
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import compile_shape
from headrace_schemas.records import ModelVersion

if TYPE_CHECKING:
    from headrace.config import Settings

LAST = 1000
"""So many of the last requests are answered by both."""
EXAMPLES_EACH = 3
MOST_EXAMPLES = 60
MOST_PAIRS = 50
MOST_CHARACTERS = 500
"""So much of an example is shown."""


class Example(msgspec.Struct, frozen=True):
    """A text that both answer differently; a label is None where the score is below the version's threshold."""

    at: str
    text: str
    a: str | None
    a_score: float
    b: str | None
    b_score: float


class Pair(msgspec.Struct, frozen=True):
    """So many requests were answered ``a`` by the first version and ``b`` by the second."""

    a: str | None
    b: str | None
    requests: int


class Compared(msgspec.Struct, frozen=True):
    """Both answered ``requests`` distinct texts, ``alike`` of them with the same label; ``erased`` were left out.

    ``unread`` says why nobody knows which texts were erased; then no example is shown.
    """

    a: str
    b: str
    requests: int
    alike: int
    pairs: list[Pair]
    examples: list[Example]
    erased: int
    unread: str


class Comparison:
    """Compares versions of one configuration, one pair at a time."""

    def __init__(self, cluster: Cluster, settings: Settings, models: ModelsView) -> None:
        self._cluster = cluster
        self._settings = settings
        self._models = models
        self._comparing = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        path = "/api/versions/{version}/beside/{other}"
        return (Endpoint("GET", path, LABELLERS | OPERATORS, self._compare),)

    async def _compare(self, call: Call) -> Response:
        log, name = await self._models.log(), self._models.name
        versions = [find_version(log, name, call.request.path_params[which]) for which in ("version", "other")]
        trusted = self._settings.signing.trusted
        floors = [max(one.threshold or 0.0, floor_of(log, one, trusted).score) for one in versions]
        async with self._comparing:
            places, texts = await self._last_texts()
            barred, unread = await barred_texts(self._cluster, self._settings)
            try:
                found = await asyncio.to_thread(self._compared, versions, floors, places, texts, barred, unread)
            except ArtifactError as error:
                raise conflict(f"A version can't be opened here: {error}") from None
        return json_response(found)

    async def _last_texts(self) -> tuple[list[str], list[str]]:
        decode = compile_shape(self._settings.requests)
        places, texts = [], []
        async for record in read_topic(self._cluster, self._settings.topics.names().requests, "requests", last=LAST):
            if record.value is None or record.discarded is not None:
                continue
            try:
                text = decode(record.value, content_type(record.headers)).text
            except WireError:  # a dead letter says so
                continue
            places.append(f"{record.partition}@{record.offset}")
            texts.append(text)
        return places, texts

    def _compared(
        self,
        versions: Sequence[ModelVersion],
        floors: Sequence[float],
        places: Sequence[str],
        texts: Sequence[str],
        barred: frozenset[str],
        unread: str,
    ) -> Compared:
        """On a thread. Raises ArtifactError."""
        keys = text_keys(texts)
        kept = {key: place for place, (key, text) in enumerate(zip(keys, texts, strict=True))}
        erased = {key for key, place in kept.items() if is_barred(texts[place], key, barred)}
        chosen = sorted(place for key, place in kept.items() if key not in erased)
        asked = [texts[place] for place in chosen]
        answers = [
            _labels(answer_scored(open_backend("cpu", self._load(one)), asked), floor)
            for one, floor in zip(versions, floors, strict=True)
        ]
        pairs: Counter[tuple[str | None, str | None]] = Counter()
        examples: list[Example] = []
        for place, (a, a_score), (b, b_score) in zip(chosen, *answers, strict=True):
            pairs[a, b] += 1
            if a != b and pairs[a, b] <= EXAMPLES_EACH and not unread:
                text = texts[place][:MOST_CHARACTERS]
                examples.append(Example(places[place], text, a, a_score, b, b_score))
        examples.sort(key=lambda one: -pairs[one.a, one.b])
        different = [Pair(a, b, count) for (a, b), count in pairs.most_common() if a != b]
        alike = sum(count for (a, b), count in pairs.items() if a == b)
        one, other = (version.version for version in versions)
        return Compared(
            one, other, len(chosen), alike, different[:MOST_PAIRS], examples[:MOST_EXAMPLES], len(erased), unread
        )

    def _load(self, version: ModelVersion) -> Artifact:
        return load_version(version, self._settings.signing.trusted, self._settings.places())


def _labels(answers: Answered, floor: float) -> list[tuple[str | None, float]]:
    return [
        (label if score >= floor else None, score) for label, score in zip(answers.labels, answers.scores, strict=True)
    ]
