"""The gate: gather the evidence about a candidate and let :mod:`headrace.core.gate` decide.

The replay answers the last real requests by candidate and champion, and counts the answers that would change. A chunk
of requests is decoded, answered by both and forgotten, so memory is bounded by the chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from headrace.core.clock import Clock
from headrace.core.errors import UserError, words_of
from headrace.core.gate import (
    LEAST_ACROSS_SPLITS,
    ClassChange,
    Comparison,
    Evidence,
    Replayed,
    Rival,
    Unmeasured,
    decide_by,
)
from headrace.core.label_rules import Rules, answered_as
from headrace.core.text import label_name
from headrace.kafka.interface import Cluster, Consumer, KafkaError, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace.learning.data.split import is_unkeyed
from headrace.learning.distributed.job import Compared, Judged, Outcome
from headrace.learning.evaluate import agreement, by_chance, compare, compare_paired
from headrace.model.backends.interface import open_backend
from headrace.model.places import Places
from headrace.process.logs import event
from headrace.registry.versions import load_version
from headrace.trainer.settings import GateSettings
from headrace.trainer.training_run import Offload
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import Decode, RequestShape, compile_shape
from headrace_schemas.records import ModelVersion, Verdict

Answer = Callable[[Sequence[bytes]], Sequence[str | None]]
"""Texts in UTF-8 to the labels that a reader would see, None where the version abstains."""

CHUNK = 500
_NO_LABEL = "(no label)"


async def replay(
    consumer: Consumer,
    topic: str,
    count: int,
    *,
    decode: Decode,
    candidate: Answer,
    champion: Answer,
    offload: Offload,
) -> Replayed:
    """Answer the last ``count`` records of ``topic``, from all its partitions, and compare.

    A record that a worker could not decode is passed over and counted. A topic that is not there, or empty, gives no
    requests. Raises a KafkaError when the topic can't be read, and what the answering functions raise.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    unreadable = 0
    starts, ends = await _last(consumer, topic, count)
    async for records in read_ranges(consumer, starts, ends, chunk=CHUNK):
        texts = [text for record in records if (text := _text(record, decode)) is not None]
        unreadable += len(records) - len(texts)
        pairs += await offload(partial(_count, champion, candidate, texts))
    return Replayed(
        requests=pairs.total(),
        changed=sum(times for (before, after), times in pairs.items() if before != after),
        unreadable=unreadable,
        classes=_by_class(pairs),
        labelled=sum(times for (_, after), times in pairs.items() if after != _NO_LABEL),
    )


def tails(lengths: Mapping[int, int], count: int) -> dict[int, int]:
    """How many of the last records to take from each partition, ``count`` in all: equal shares, and what a short
    partition can't give comes from the others.
    """
    taken = dict.fromkeys(lengths, 0)
    left = count
    # From the shortest on, each may take an equal share of what is left.
    for place, (partition, length) in enumerate(sorted(lengths.items(), key=lambda item: (item[1], item[0]))):
        taken[partition] = min(length, left // (len(lengths) - place))
        left -= taken[partition]
    return taken


async def _last(
    consumer: Consumer, topic: str, count: int
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Where the last ``count`` records begin and end in each partition."""
    names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
    begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    taken = tails({name.partition: ends[name] - begins[name] for name in names}, count)
    return {name: ends[name] - taken[name.partition] for name in names}, ends


def _text(record: Record, decode: Decode) -> bytes | None:
    try:
        return decode(record.value, content_type(record.headers)).text.encode()
    except WireError:
        return None


def _count(champion: Answer, candidate: Answer, texts: Sequence[bytes]) -> Counter[tuple[str, str]]:
    """How often each pair of labels, the champion's and the candidate's, occurs."""
    shown = [[_NO_LABEL if label is None else label for label in answer(texts)] for answer in (champion, candidate)]
    return Counter(zip(*shown, strict=True))


def _by_class(pairs: Counter[tuple[str, str]]) -> tuple[ClassChange, ...]:
    requests: Counter[str] = Counter()
    changes: dict[str, Counter[str]] = {}
    for (before, after), times in pairs.items():
        requests[before] += times
        if before != after:
            changes.setdefault(before, Counter())[after] += times
    return tuple(
        ClassChange(label, requests[label], changes[label].total(), _most(changes[label]))
        if label in changes
        else ClassChange(label, requests[label], 0, None)
        for label in sorted(requests)
    )


def _most(towards: Counter[str]) -> str:
    return min(towards, key=lambda label: (-towards[label], label))


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
    places: Places,
    clock: Clock,
    offload: Offload,
    randomness: np.random.Generator,
) -> Verdict:
    """What the gate decides about ``candidate``, which came of the training ``outcome``.

    ``champion`` is the version whose answers the outcome holds beside the new ones, None for a first version; the
    outcome may hold those of a baseline too. What
    can't be measured (the store or Kafka away, an artifact damaged) fails its check, so that nothing is promoted that
    was not looked at; the reason is in the verdict. ``trusted`` are the public keys of which one has to have signed a
    version that is loaded, if there are any, and it lies below ``places``. ``offload`` runs the computing off the event
    loop.
    """
    baseline = outcome.baseline
    evidence = await offload(lambda: _evidence(candidate, outcome, settings.resamples, randomness))

    async def beside(version: str, alias: str, other: Compared | None) -> Rival:
        rival: Rival = await offload(lambda: _rival(version, alias, other, outcome, settings.resamples, randomness))
        return rival

    if champion is not None:
        evidence = msgspec.structs.replace(
            evidence,
            champion=await beside(champion.version, "champion", outcome.champion),
            champion_latency_us=None if outcome.champion is None else outcome.champion.latency_us,
            replay=await _replay(
                candidate, champion, traffic, settings, trusted, places, offload, outcome.lineage.label_rules
            )
            if settings.replay
            else None,
        )
    if baseline is not None:
        evidence = msgspec.structs.replace(evidence, baseline=await beside(baseline.version, "baseline", baseline))
    decision = decide_by(evidence, settings)
    return Verdict(
        name=candidate.name,
        version=candidate.version,
        promoted=decision.promoted,
        reason=decision.reason,
        decided_at_ms=clock.now_ms(),
        checks=decision.checks,
        champion=None if champion is None else champion.version,
        baseline=candidate.version if decision.raises_baseline else _baseline_before(champion, outcome),
    )


def _evidence(candidate: ModelVersion, outcome: Outcome, resamples: int, randomness: np.random.Generator) -> Evidence:
    """What is measured of the candidate alone: on the rows of the holdout where there is one, else on the test rows."""
    chosen = outcome.holdout
    on = outcome if chosen is None else chosen
    truth, answers, original = on.truth, on.answers, on.float_answers
    learnt = frozenset(map(label_name, candidate.labels))
    report = compare(truth, answers, learnt=learnt) if truth else None
    return Evidence(
        rows=len(truth),
        classes=len(set(truth)),
        learnt=len(learnt),
        untested=tuple(sorted(learnt)) if report is None else report.untested,
        macro_f1=None if report is None else report.macro_f1,
        interval=(0.0, 1.0) if report is None else report.macro_f1_interval,
        by_chance=by_chance(truth, answers, resamples=resamples, randomness=randomness) if truth else None,
        # A training from before the holdout was answered by the original too has no answers of it.
        agreement=agreement(answers, original) if original else None,
        size=candidate.size,
        latency_us=outcome.latency_us,
        decided_on="test rows" if chosen is None else "rows of gate.holdout",
        sources={outcome.lineage.source: len(truth)} if truth and chosen is None else {},
        unproven=outcome.lineage.unproven,
        keyed=chosen is not None or not is_unkeyed(outcome.lineage.split),
    )


def _baseline_before(champion: ModelVersion | None, outcome: Outcome) -> str | None:
    """The version that was the baseline; the champion is, where the training was told of no other."""
    if outcome.baseline is not None:
        return outcome.baseline.version
    return None if champion is None else champion.version


def answer_by(version: ModelVersion, trusted: Collection[str], places: Places) -> Answer:
    """Load the artifact of ``version`` and make it ready to answer as a worker does, threshold included.

    Raises ArtifactError, BoundsError or FoldingError when it can't be answered from.
    """
    artifact = load_version(version, trusted, places)
    backend = open_backend("cpu", artifact)
    labels, least = [label_name(label) for label in artifact.labels], artifact.about.threshold or 0.0

    def answer(texts: Sequence[bytes]) -> list[str | None]:
        answers = backend.classify(texts)
        return [
            labels[label] if score >= least else None
            for label, score in zip(answers.labels.tolist(), answers.scores.tolist(), strict=True)
        ]

    return answer


def _rival(
    version: str,
    alias: str,
    other: Compared | None,
    outcome: Outcome,
    resamples: int,
    randomness: np.random.Generator,
) -> Rival:
    """``version``, which ``alias`` points at, beside the candidate on the test rows that neither was trained on."""
    if outcome.holdout is not None:
        return _on_holdout(version, other, outcome.holdout, resamples, randomness)
    chosen = _rows_for_both(alias, other, outcome)
    if isinstance(chosen, Unmeasured):
        return Rival(version=version, comparison=chosen)
    assert other is not None  # noqa: S101 - nothing would have been chosen
    answers = other.answers

    def on(rows: Sequence[int]) -> Comparison | None:
        if not rows:
            return None
        truth, ours, theirs = ([of[row] for row in rows] for of in (outcome.truth, outcome.answers, answers))
        return compare_paired(truth, ours, theirs, resamples=resamples, randomness=randomness)

    whole = on(chosen)
    assert whole is not None  # noqa: S101 - rows were chosen
    if other.known is None:
        return Rival(version=version, comparison=whole)
    known = [row for row in chosen if other.known[row]]
    new = [row for row in chosen if not other.known[row]]
    return Rival(version=version, comparison=whole, known=on(known), new=on(new))


def _on_holdout(
    version: str, other: Compared | None, holdout: Judged, resamples: int, randomness: np.random.Generator
) -> Rival:
    if other is None or not other.holdout_answers:
        return Rival(version=version, comparison=Unmeasured("the training holds no answers of it"))
    comparison = compare_paired(
        holdout.truth, holdout.answers, other.holdout_answers, resamples=resamples, randomness=randomness
    )
    return Rival(version=version, comparison=comparison, spared=other.spared)


def _rows_for_both(alias: str, other: Compared | None, outcome: Outcome) -> list[int] | Unmeasured:
    """The places of the test rows that neither version was trained on."""
    if not outcome.truth:
        return Unmeasured("there is no test row")
    if other is None or not other.answers:
        return Unmeasured("the training holds no answers of it")
    by_hand = (
        f"Look at the new version and `headrace models promote VERSION --alias {alias}`, or name rows that decide as "
        "gate.holdout"
    )
    if other.fair is None:
        return Unmeasured(
            f"its rows were divided by the split {other.split}, which is not known here, so it may have been trained "
            f"on them. If another key made it, set that as trainer.previous_split_key. {by_hand}"
        )
    chosen = [row for row, fair in enumerate(other.fair) if fair]
    if not chosen:
        return Unmeasured(f"it may have been trained on every test row. {by_hand}")
    across = other.split != outcome.lineage.split and len(chosen) < len(other.fair)
    if across and len(chosen) < LEAST_ACROSS_SPLITS:
        return Unmeasured(
            f"its rows were divided by another split, and only {len(chosen)} rows are test rows of both; below "
            f"{LEAST_ACROSS_SPLITS} nobody can tell. {by_hand}"
        )
    return chosen


async def _replay(
    candidate: ModelVersion,
    champion: ModelVersion,
    traffic: Traffic,
    settings: GateSettings,
    trusted: Collection[str],
    places: Places,
    offload: Offload,
    rules: Rules,
) -> Replayed | Unmeasured:
    consumer = traffic.cluster.consumer()
    try:
        ours = await offload(lambda: answer_by(candidate, trusted, places))
        theirs = await offload(lambda: answer_by(champion, trusted, places))
        await consumer.start()
        return await replay(
            consumer,
            traffic.topic,
            settings.replay,
            decode=compile_shape(traffic.shape),
            candidate=ours,
            # A label that was renamed since is no change.
            champion=lambda texts: [None if one is None else answered_as(one, rules) for one in theirs(texts)],
            offload=offload,
        )
    except (KafkaError, UserError) as error:
        event("replay.failed", level="error", version=candidate.version, champion=champion.version, error=str(error))
        # A verdict is for everybody who reads the topic, and an error of Kafka repeats its client and the broker.
        kafka = f"Kafka could not be read ({type(error).__name__}); the trainer's log says why"
        return Unmeasured(kafka if isinstance(error, KafkaError) else words_of(error))
    finally:
        await consumer.stop()
