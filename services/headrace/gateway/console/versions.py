"""Versions: what is known of each, and what operators do with them. Who did it stands on the record.

The records are made where those of the commands are (``registry/aliases.py``), with the same checks before: a version
has to be signed as the settings ask, and its artifact to be readable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from headrace.core.cascade import Refused
from headrace.core.clock import Clock
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import ANY, LABELLERS, OPERATORS, Call, Endpoint
from headrace.gateway.console.models import ModelsView
from headrace.gateway.problems import conflict, not_found
from headrace.kafka.interface import Cluster
from headrace.learning.certifying import certificate_of
from headrace.learning.data.random_slice import asked_by_rules, read_label_records, unseen
from headrace.learning.evaluate import Report, answer_scored, compare
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import open_backend
from headrace.model.errors import ArtifactError
from headrace.model.signing import SignatureError, certificate_signer, verify
from headrace.registry.aliases import move, roll_back, set_pin
from headrace.registry.compacted_topics import ModelsLog
from headrace.registry.versions import find_version, load_version
from headrace_schemas.records import (
    Certificate,
    ModelAlias,
    ModelVersion,
    ThresholdRaise,
    Training,
    TrainingOrder,
    Verdict,
)

if TYPE_CHECKING:
    from headrace.config import Settings

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,249}\Z")]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
MOST_CONFUSIONS = 50


class Promotion(msgspec.Struct, frozen=True):
    """Point ``alias`` at ``version``. ``seen`` is where it pointed when that was decided."""

    alias: Name
    version: str
    reason: Reason
    seen: str | None = None


class Rollback(msgspec.Struct, frozen=True):
    """Point ``alias`` at what it pointed at before."""

    alias: Name
    reason: Reason
    seen: str | None = None


class Pin(msgspec.Struct, frozen=True):
    """Hold ``alias`` where it is, or let the trainer move it again."""

    alias: Name
    pinned: bool
    reason: Reason
    seen: str | None = None


class Order(msgspec.Struct, frozen=True):
    """Train now."""

    reason: Reason


class Certification(msgspec.Struct, frozen=True):
    """Find the score from which on at most the share ``disagree`` of a version's answers is wrong, and publish it.

    With ``dry_run`` nothing is published.
    """

    version: str
    disagree: Annotated[float, Meta(ge=0.0001, le=0.5)]
    dry_run: bool = False


class Certified(msgspec.Struct, frozen=True):
    """What was found, and everything as it stands then."""

    certificate: Certificate
    listed: Listed


class Known(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version with what is said of it elsewhere."""

    version: str
    created_at_ms: int
    size: int
    labels: int
    metrics: dict[str, float]
    compression: dict[str, float]
    threshold: float | None
    untested: tuple[str, ...]
    unproven: bool
    rows: int | None
    machine_rows: int | None
    parent: str | None
    verdict: Verdict | None
    certificate: Certificate | None
    raised: ThresholdRaise | None


class Listed(msgspec.Struct, frozen=True):
    """All versions, the newest first, and the aliases with how they moved."""

    name: str
    versions: list[Known]
    aliases: list[ModelAlias]
    moves: list[ModelAlias]
    training: Training | None
    order: TrainingOrder | None


class Versions:
    """Reads and writes the models topic for the console."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Clock, models: ModelsView) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._models = models
        self._deciding = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/api/versions", ANY, self._list),
            Endpoint("GET", "/api/versions/{version}/report", LABELLERS | OPERATORS, self._report),
            Endpoint("POST", "/api/versions/promote", OPERATORS, self._promote),
            Endpoint("POST", "/api/versions/rollback", OPERATORS, self._roll_back),
            Endpoint("POST", "/api/versions/pin", OPERATORS, self._pin),
            Endpoint("POST", "/api/versions/certify", OPERATORS, self._certify),
            Endpoint("POST", "/api/versions/train", OPERATORS, self._train),
        )

    async def _list(self, call: Call) -> Response:
        del call
        return json_response(await self._listed())

    async def _listed(self) -> Listed:
        log, name = await self._models.log(), self._models.name
        versions = sorted(
            (version for (of, _), version in log.versions.items() if of == name),
            key=lambda one: (-one.created_at_ms, one.version),
        )
        return Listed(
            name=name,
            versions=[_known(log, version) for version in versions],
            aliases=sorted((one for (of, _), one in log.aliases.items() if of == name), key=lambda one: one.alias),
            moves=await self._models.moves(),
            training=log.trainings.get(name),
            order=log.orders.get(name),
        )

    async def _report(self, call: Call) -> Response:
        """How a version answers what people labelled of the random slice since it was made."""
        log, name = await self._models.log(), self._models.name
        version = find_version(log, name, call.request.path_params["version"])
        rules = log.rules_of(name)
        labels = await read_label_records(
            self._cluster, self._settings.topics.names().labels, self._settings.trainer.max_text_bytes, rules
        )

        def evaluate() -> Report | None:
            rows = unseen(labels, version).sample
            if not len(rows):
                return None
            backend = open_backend("cpu", self._load(version))
            answers = asked_by_rules(lambda texts: answer_scored(backend, texts), rules)(rows.texts)
            return compare(rows.labels, answers.labels, learnt=version.labels, most_confusions=MOST_CONFUSIONS)

        try:
            report = await asyncio.to_thread(evaluate)
        except ArtifactError as error:
            raise conflict(f"The version can't be opened here: {error}") from None
        if report is None:
            raise not_found(
                "Nobody labelled a text of the random slice since this version was made. The page Label offers them.",
            )
        return json_response(report)

    async def _certify(self, call: Call) -> Response:
        """As `headrace models certify` does, of the labels on their topic."""
        asked = await call.body(Certification)
        sign = certificate_signer(self._settings.signing.key_file, self._settings.signing.trusted)
        log, name = await self._models.log(), self._models.name
        version, rules = find_version(log, name, asked.version), log.rules_of(name)
        if version.lineage is None or not version.lineage.offsets:
            raise conflict(
                f"{version.version} was not trained from the labels topic, so which labels it saw is not known. "
                "`headrace models certify --rows FILE` takes rows that it never saw.",
            )
        labels = await read_label_records(
            self._cluster, self._settings.topics.names().labels, self._settings.requests.max_text_bytes, rules
        )

        def find() -> Certificate | Refused:
            backend = open_backend("cpu", self._load(version))
            ask = asked_by_rules(lambda texts: answer_scored(backend, texts), rules)
            rows, now_ms = unseen(labels, version), self._clock.now_ms()
            return certificate_of(version, ask, rows, disagree=asked.disagree, now_ms=now_ms)

        async with self._deciding:
            try:
                found = await asyncio.to_thread(find)
            except (SignatureError, ArtifactError) as error:
                raise conflict(f"The version can't be opened here: {error}") from None
            if isinstance(found, Refused):
                raise conflict(f"{version.version} is not certified: {found.why}.")
            certificate = sign(msgspec.structs.replace(found, by=call.caller.name))
            if not asked.dry_run:
                await self._models.publish([certificate])
        return json_response(Certified(certificate, await self._listed()))

    async def _promote(self, call: Call) -> Response:
        asked = await call.body(Promotion)

        def decide(log: ModelsLog, name: str, now_ms: int) -> ModelAlias:
            found = find_version(log, name, asked.version)
            return move(
                log,
                name,
                asked.alias,
                found.version,
                reason=asked.reason,
                now_ms=now_ms,
                by_hand=True,
                by=call.caller.name,
            )

        return await self._decided(asked.alias, asked.seen, decide, check=True)

    async def _roll_back(self, call: Call) -> Response:
        asked = await call.body(Rollback)

        def decide(log: ModelsLog, name: str, now_ms: int) -> ModelAlias:
            return roll_back(log, name, asked.alias, reason=asked.reason, now_ms=now_ms, by=call.caller.name)

        return await self._decided(asked.alias, asked.seen, decide, check=True)

    async def _pin(self, call: Call) -> Response:
        asked = await call.body(Pin)

        def decide(log: ModelsLog, name: str, now_ms: int) -> ModelAlias:
            return set_pin(
                log,
                name,
                asked.alias,
                pinned=asked.pinned,
                reason=asked.reason,
                now_ms=now_ms,
                by=call.caller.name,
            )

        return await self._decided(asked.alias, asked.seen, decide, check=False)

    async def _train(self, call: Call) -> Response:
        asked = await call.body(Order)
        order = TrainingOrder(
            name=self._models.name, ordered_at_ms=self._clock.now_ms(), reason=asked.reason, by=call.caller.name
        )
        await self._models.publish([order])
        return json_response(await self._listed())

    async def _decided(
        self, alias: str, seen: str | None, decide: Callable[[ModelsLog, str, int], ModelAlias], *, check: bool
    ) -> Response:
        """Publish what ``decide`` gives, unless the alias was moved since it was ``seen``."""
        async with self._deciding:
            log, name = await self._models.log(), self._models.name
            decided = decide(log, name, self._clock.now_ms())
            if check:
                version = log.versions[decided.name, decided.version]
                try:
                    verify(version, self._settings.signing.trusted)
                    await asyncio.to_thread(self._load, version)
                except (SignatureError, ArtifactError) as error:
                    raise conflict(f"Nothing was moved: {error}") from None
            # Looking at the artifact took its time.
            pointer = (await self._models.log()).aliases.get((name, alias))
            if seen != (None if pointer is None else pointer.version):
                there = "is not there" if pointer is None else f"points at {pointer.version}"
                raise conflict(f"Nothing was moved: {alias} {there} by now. Look again.")
            await self._models.publish([msgspec.structs.replace(decided, moved_at_ms=self._clock.now_ms())])
        return json_response(await self._listed())

    def _load(self, version: ModelVersion) -> Artifact:
        return load_version(version, self._settings.signing.trusted, self._settings.places())


def _known(log: ModelsLog, version: ModelVersion) -> Known:
    key, lineage = (version.name, version.version), version.lineage
    return Known(
        version=version.version,
        created_at_ms=version.created_at_ms,
        size=version.size,
        labels=len(version.labels),
        metrics=version.metrics,
        compression=version.compression,
        threshold=version.threshold,
        untested=version.untested,
        unproven=version.unproven,
        rows=None if lineage is None else lineage.rows,
        machine_rows=None if lineage is None else lineage.machine_rows,
        parent=version.parent,
        verdict=log.verdicts.get(key),
        certificate=log.certificates.get(key),
        raised=log.raises.get(key),
    )
