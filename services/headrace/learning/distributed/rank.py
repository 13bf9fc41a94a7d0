"""What one rank does: read its rows, train, compress and pack with the others; rank 0 writes what came of it."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from headrace.core.text import alike
from headrace.files import DatasetError
from headrace.files.table import Reading
from headrace.kafka.interface import Cluster
from headrace.learning.compress.curve import draw, float_bytes
from headrace.learning.data.features import Lengths, follow_lengths
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import read_partitions
from headrace.learning.data.machine_labels import read_machine_partitions
from headrace.learning.data.split import Parts, Splits, Splitting
from headrace.learning.data.validation import check_labels
from headrace.learning.data.vectors import check_vectors
from headrace.learning.data.vocabulary import Embed
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.comparison import NO_ROWS, Holdout, compared, keep_to, read_holdout
from headrace.learning.distributed.job import (
    Checkpoints,
    Compared,
    FileSource,
    Job,
    Judged,
    MachineSource,
    NoCheckpoints,
    Outcome,
    StoredCheckpoints,
    TopicSource,
    outcome_uri,
)
from headrace.learning.distributed.merge import merge_labels, read_files
from headrace.learning.distributed.merge_machine import merge_snapshot
from headrace.learning.evaluate import answer, float_answers, latency_us, longest_us
from headrace.learning.fit.teaching import Reteach
from headrace.learning.fit.train import Steps, Trained, require_classes, train
from headrace.learning.package import Packed, lineage_of, pack
from headrace.learning.resources import free_memory
from headrace.model import store
from headrace.model.artifact import beside, save
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.network import Network
from headrace.model.places import Places
from headrace.process.logs import event
from headrace.registry.versions import load_version
from headrace_schemas.records import OffsetRange

LABELS_NAMED = 20
"""Labels that one line of the log names."""


def run(
    job: Job,
    cluster: Cluster | None,
    exchange: Exchange,
    on_event: Callable[..., None] = event,
    *,
    trusted: Collection[str],
    splits: Splits,
    places: Places,
    holdout: str | None = None,
    holdout_reading: Reading = Reading(),  # noqa: B008 - frozen
    resumes: bool = True,
    memory: Callable[[], int] = free_memory,
    embed: Embed | None = None,
    reteach: Reteach | None = None,
) -> None:
    """Train ``job`` to its end. ``cluster`` is where the source's topic is; rank 0 tells ``on_event`` how it goes.

    ``trusted`` are the public keys of which one has to have signed the champion and the baseline, if there are any; all
    files lie below ``places``. Of ``splits`` the job names one, and ``holdout``, gate.holdout of the settings, has to
    be the job's. A rank that is started again goes on from the last checkpoint; where none will be, because ``resumes``
    is false, none is kept. ``memory`` tells how many bytes are free on this machine; ``embed`` and ``reteach`` are a
    teacher's (:func:`~headrace.learning.fit.train.train`), where it is here. Raises DatasetError for rows that can't be
    trained on or divided, VectorsError, ArtifactError for a champion or baseline that can't be loaded, and a
    KafkaError.
    """
    begun = time.monotonic()
    # First of all: what is refused should not cost a training.
    check_vectors(job.recipe.convolution.vectors)
    rivals = [
        None if one is None else (one, open_backend("cpu", load_version(one, trusted, places)))
        for one in (job.champion, job.baseline)
    ]
    splitting = _splitting(job, splits)
    checkpoints = StoredCheckpoints(job.checkpoints, exchange, places) if resumes else NoCheckpoints()
    aside = _holdout(job, holdout, holdout_reading, cluster, exchange, splitting, checkpoints)
    parts = read_parts(job.source, cluster, exchange, splitting, aside, job.max_labels)
    check_labels(parts.labels, job.max_labels)
    require_classes(parts)

    def tell(name: str, **fields: Any) -> None:
        if exchange.rank == 0:
            on_event(name, **fields)

    recipe, lengths = follow_lengths(job.recipe, parts, exchange, follow=job.follow_lengths)
    tell(
        "training.read",
        rows=parts.rows,
        machine_rows=parts.machine_rows,
        disagreements=parts.disagreements,
        labels=len(parts.labels),
        dropped=parts.dropped,
        split=parts.splitting,
        max_tokens=lengths.max_tokens,
        longest_text=lengths.longest,
        cut_texts=lengths.truncated,
    )
    _tell_of_labels(parts, tell)
    trained = train(
        parts,
        recipe,
        exchange,
        checkpoints,
        clock=time.perf_counter,
        budget=job.budget,
        accept=job.accept,
        steps=Steps(
            memory=lambda need, free: tell("training.memory", bytes=need, free_bytes=free),
            choice=lambda choice: tell("training.choice", **msgspec.to_builtins(choice)),
            epoch=lambda epoch: tell("training.epoch", **msgspec.to_builtins(epoch)),
            point=lambda point: tell("training.compressed", **msgspec.to_builtins(point)),
            refit=lambda number, total: tell("training.refit", number=number, total=total),
        ),
        # Ranks of one machine share what it has.
        free=memory() // exchange.gather(platform.node(), str).count(platform.node()),
        embed=embed,
        reteach=reteach,
    )
    lineage = lineage_of(parts, _source_name(job.source), recipe, exchange, _offsets(job.source), _machine(job.source))
    packed = pack(
        trained,
        parts,
        msgspec.structs.replace(lineage, label_rules=_rules(job.source)),
        exchange,
        created_at_ms=job.created_at_ms,
        parent=job.parent,
    )
    champion, baseline = (
        None if rival is None else compared(*rival, parts, job.source, splits, exchange, aside.rows) for rival in rivals
    )
    if exchange.rank == 0:
        outcome = _outcome(job, trained, packed, parts, champion, baseline, aside, begun=begun, lengths=lengths)
        where = places.locate(outcome.uri)
        save(packed.artifact, where)
        if trained.curve is not None:
            table, picture = beside(where)
            store.write(table, msgspec.json.encode(trained.curve), job.id)
            store.write(picture, draw(trained.curve, outcome.version), job.id)
        store.write(places.locate(outcome_uri(job)), msgspec.json.encode(outcome), job.id)
        tell("training.done", version=outcome.version, seconds=outcome.seconds)
    # Nobody leaves before rank 0 has written: the launcher takes the first to end as the end.
    exchange.gather(0, int)


def _tell_of_labels(parts: Parts, tell: Callable[..., None]) -> None:
    """Name the labels that are not learnt, that are spelled alike, or of so few rows that a row changed sides."""
    if parts.unlearnt:
        tell("training.unlearnt", level="warning", labels=len(parts.unlearnt), names=parts.unlearnt[:LABELS_NAMED])
    if found := [name for group in alike(parts.labels) for name in group]:
        tell("training.alike", level="warning", labels=len(found), names=found[:LABELS_NAMED])
    for what, names in (("lent", parts.split.moved.lent), ("borrowed", parts.split.moved.borrowed)):
        if names:
            tell(f"training.{what}", labels=len(names), names=names[:LABELS_NAMED])


def read_parts(
    source: FileSource | TopicSource,
    cluster: Cluster | None,
    exchange: Exchange,
    splitting: Splitting,
    aside: Holdout,
    most_labels: int | None = None,
) -> Parts:
    """The rank's own rows: of a topic the partitions p with p % world == rank, without the texts that are ``aside``."""
    if isinstance(source, FileSource):
        return read_files(source, exchange, splitting)
    if cluster is None:
        raise ValueError(f"the labels are on the topic {source.topic}, but no cluster was given")

    def own(ranges: Sequence[OffsetRange]) -> list[int]:
        return [found.partition for found in ranges if found.partition % exchange.world == exchange.rank]

    shard = asyncio.run(read_partitions(cluster, source, own(source.ranges)))
    if (machine := source.machine) is None:
        parts = merge_labels(shard, exchange, splitting, held_out=aside.keys)
    else:
        reading_ = read_machine_partitions(cluster, machine, own(machine.ranges), source.max_text_bytes)
        parts = merge_snapshot(
            shard,
            asyncio.run(reading_),
            source,
            exchange,
            splitting,
            held_out=aside.keys,
            most_labels=most_labels,
        )
    return msgspec.structs.replace(parts, holdout=aside.digest if aside.keys else None)


def _splitting(job: Job, splits: Splits) -> Splitting:
    found = splits.find(job.split)
    if found is None:
        raise DatasetError(
            f"the rows of training {job.id} are divided by the split {job.split}, and trainer.split_key of this "
            f"machine makes {splits.current.id}. Give all machines and processes of a training the same "
            "trainer.split_key; a key that was replaced goes to trainer.previous_split_key"
        )
    return found


def _holdout(
    job: Job,
    given: str | None,
    reading: Reading,
    cluster: Cluster | None,
    exchange: Exchange,
    splitting: Splitting,
    checkpoints: Checkpoints,
) -> Holdout:
    """The rows that decide, none where the job names none. What a job names is opened only if the settings say so too.

    Raises DatasetError when they are not those that the job was begun with.
    """
    if job.holdout is None or not isinstance(job.source, TopicSource):
        return Holdout(NO_ROWS, frozenset(), "")
    if job.holdout != given:
        raise DatasetError(
            f"training {job.id} was begun with {job.holdout} as gate.holdout, and this machine has "
            f"{given or 'none'}. Give all machines and processes of a training the same"
        )
    found = read_holdout(
        job.holdout,
        cluster,
        exchange,
        hashing=splitting.hashing,
        max_text_bytes=job.source.max_text_bytes,
        reading=reading,
        rules=job.source.rules,
    )
    if job.holdout_digest not in (None, found.digest):
        raise DatasetError(
            f"gate.holdout, {job.holdout}, has other texts than those that the version's training left out "
            f"({found.digest}, and not {job.holdout_digest}), so it would learn from other rows"
        )
    keep_to(found, checkpoints, job.holdout)
    return found


def _source_name(source: FileSource | TopicSource) -> str:
    return source.topic if isinstance(source, TopicSource) else (source.data or source.taught or "").rpartition("/")[2]


def _offsets(source: FileSource | TopicSource) -> tuple[OffsetRange, ...]:
    return source.ranges if isinstance(source, TopicSource) else ()


def _machine(source: FileSource | TopicSource) -> MachineSource | None:
    return source.machine if isinstance(source, TopicSource) else None


def _outcome(
    job: Job,
    trained: Trained,
    packed: Packed,
    parts: Parts,
    champion: Compared | None,
    baseline: Compared | None,
    aside: Holdout,
    *,
    begun: float,
    lengths: Lengths,
) -> Outcome:
    artifact, examined = packed.artifact, packed.examined
    texts = parts.split.test.texts or parts.split.train.texts
    assert artifact.about.lineage is not None  # noqa: S101 - it was given one above
    return Outcome(
        uri=f"{job.out.rstrip('/')}/{artifact.version}.safetensors",
        version=artifact.version,
        sha256=artifact.sha256,
        size=artifact.size,
        float_size=float_bytes(trained.original),
        lineage=artifact.about.lineage,
        report=packed.report,
        float_report=packed.float_report,
        truth=examined.truth,
        answers=examined.answers.labels,
        float_answers=examined.float_answers,
        champion=champion,
        baseline=baseline,
        holdout=_judged(packed.backend, trained.original, aside.rows),
        curve=trained.curve,
        latency_us=latency_us(packed.backend, texts, time.perf_counter),
        epochs=trained.chosen.number,
        lengths=lengths,
        longest_us=longest_us(packed.backend, texts, lengths.max_tokens, time.perf_counter),
        # Evaluated last, so that the measuring above counts too.
        seconds=time.monotonic() - begun,
    )


def _judged(backend: Backend, original: Network, rows: Rows) -> Judged | None:
    if not len(rows):
        return None
    return Judged(rows.labels, tuple(answer(backend, rows.texts)), float_answers(original, rows.texts))


def _rules(source: FileSource | TopicSource) -> dict[str, str | None]:
    return source.rules if isinstance(source, TopicSource) else {}
