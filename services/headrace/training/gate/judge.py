"""Judge: gather the evidence about a candidate and let :mod:`headrace.core.gate` decide."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.gate import Comparison, Evidence, Replayed, Unmeasured, judge
from headrace.kafka.errors import KafkaError
from headrace.kafka.interface import Cluster
from headrace.logs import event
from headrace.model.backends.interface import open_backend
from headrace.registry.loading import load_version
from headrace.training.gate.bootstrap import compare_paired
from headrace.training.gate.replay import Answer, Offload, replay
from headrace.training.gate.settings import GateSettings
from headrace.training.ranks.job import Outcome
from headrace.training.report import agreement
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ModelVersion, Verdict


class Traffic(msgspec.Struct, frozen=True):
    """Where real requests are: the requests topic of ``cluster``, and the shape of its records."""

    cluster: Cluster
    topic: str
    shape: RequestShape


async def decide(
    candidate: ModelVersion,
    champion: ModelVersion | None,
    outcome: Outcome,
    *,
    traffic: Traffic,
    settings: GateSettings,
    trusted: Collection[str],
    clock: Clock,
    offload: Offload,
    randomness: np.random.Generator,
) -> Verdict:
    """What the gate decides about ``candidate``, which came of the training ``outcome``.

    ``champion`` is the version whose answers the outcome holds beside the new ones, None for a first version. What
    can't be measured (the store or Kafka away, an artifact damaged) fails its check, so that nothing is promoted that
    was not looked at; the reason is in the verdict. ``trusted`` are the public keys of which one has to have signed a
    version that is loaded, if there are any. ``offload`` runs the computing off the event loop.
    """
    evidence = Evidence(
        rows=len(outcome.truth),
        classes=len(set(outcome.truth)),
        macro_f1=outcome.report.macro_f1,
        agreement=agreement(outcome.answers, outcome.float_answers),
        size=candidate.size,
        latency_us=outcome.latency_us,
    )
    if champion is not None:
        evidence = msgspec.structs.replace(
            evidence,
            champion=champion.version,
            comparison=await offload(lambda: _compare(outcome, settings.resamples, randomness)),
            champion_latency_us=outcome.champion_latency_us,
            replay=await _replay(candidate, champion, traffic, settings, trusted, offload) if settings.replay else None,
        )
    judgement = judge(evidence, settings)
    return Verdict(
        name=candidate.name,
        version=candidate.version,
        promoted=judgement.promoted,
        reason=judgement.reason,
        decided_at_ms=clock.now_ms(),
        checks=judgement.checks,
        champion=evidence.champion,
    )


def answer_by(version: ModelVersion, trusted: Collection[str]) -> Answer:
    """Load the artifact of ``version`` and make it ready to answer as a worker does, threshold included.

    Raises ArtifactError, BoundsError or FoldingError when it can't be answered from.
    """
    artifact = load_version(version, trusted)
    backend = open_backend("cpu", artifact)
    labels, least = artifact.labels, artifact.about.threshold or 0.0

    def answer(texts: Sequence[bytes]) -> list[str | None]:
        answers = backend.classify(texts)
        return [
            labels[label] if score >= least else None
            for label, score in zip(answers.labels.tolist(), answers.scores.tolist(), strict=True)
        ]

    return answer


def _compare(outcome: Outcome, resamples: int, randomness: np.random.Generator) -> Comparison | Unmeasured:
    if not outcome.truth:
        return Unmeasured("there is no test row")
    if not outcome.champion_answers:
        return Unmeasured("the training holds no answers of it")
    return compare_paired(
        outcome.truth, outcome.answers, outcome.champion_answers, resamples=resamples, randomness=randomness
    )


async def _replay(
    candidate: ModelVersion,
    champion: ModelVersion,
    traffic: Traffic,
    settings: GateSettings,
    trusted: Collection[str],
    offload: Offload,
) -> Replayed | Unmeasured:
    consumer = traffic.cluster.consumer()
    try:
        ours = await offload(lambda: answer_by(candidate, trusted))
        theirs = await offload(lambda: answer_by(champion, trusted))
        await consumer.start()
        return await replay(
            consumer,
            traffic.topic,
            settings.replay,
            decode=compile_shape(traffic.shape),
            candidate=ours,
            champion=theirs,
            offload=offload,
        )
    except (KafkaError, UserError) as error:
        event("replay.failed", level="error", version=candidate.version, champion=champion.version, error=str(error))
        return Unmeasured(str(error))
    finally:
        await consumer.stop()
