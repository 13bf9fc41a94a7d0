"""What can be set of a worker; times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from headrace.core.fields import LARGEST, LONGEST_S, ModelName, Name, Place, Section, StartText
from headrace.core.resume import LARGEST_MAX_BATCH

Positive = Annotated[int, Meta(gt=0, le=LARGEST)]
Seconds = Annotated[float, Meta(gt=0, le=LONGEST_S)]


class WorkerSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every worker of a group has at most the ``max_batch`` of the claim on its results topic: resuming looks back by
    that.
    """

    group: Name = "headrace"
    """The consumer group whose members share the requests."""
    model: Place = "champion"
    """A URI of an artifact; or on the models topic an alias, which is followed, or a version, or its beginning."""
    model_name: ModelName = "default"
    """Which model's aliases are meant."""
    keep_previous: bool = True
    """Hold the alias's previous version in memory too, so that a rollback needs no loading."""
    load_timeout: Seconds = 300.0
    """Longest wait for a version to be loaded; past it the load has failed, and is tried again."""
    start_from: StartText = "earliest"
    """Where a new group begins: earliest, latest, or a time as ISO 8601, without a zone in UTC."""
    backend: Literal["cpu", "cuda", "reference", "constant"] = "cpu"
    """What computes; constant has no model and tells what the rest costs."""
    threads: Annotated[int, Meta(gt=0, le=1024)] = 1
    """Threads that compute."""
    max_batch: Annotated[int, Meta(gt=0, le=LARGEST_MAX_BATCH)] = 1024
    """Most requests in one batch; resuming looks back by it, so the claim on the results topic bounds it."""
    max_batch_bytes: Positive = 1 << 20
    """Most bytes of requests in one batch."""
    waiting_per_partition: Positive = 4096
    """Fetched requests held of one partition before its fetching pauses."""
    results_format: Literal["json", "msgpack"] = "json"
    """How answers are written."""
    ranking: Annotated[int, Meta(ge=0, le=20)] = 0
    """How many labels, best first, an answer ranks."""
    explain: bool = True
    """Explain the answer of a request that asks for it; an explanation takes some hundred times as long as a label."""
    commit_every: Seconds = 0.5
    """How often the place of the group is committed, for the tools that show lag."""
    publish_timeout: Seconds = 30.0
    """Longest wait for an acknowledgement; past it the producer is replaced and the partition resumes."""
    revoke_timeout: Seconds = 5.0
    """Longest time that giving up partitions takes in a rebalance: answers that are on their way, and the release.

    With kafka.heartbeat_interval_ms, after which a member learns of the rebalance, below kafka.rebalance_timeout_ms.
    """
    drain_timeout: Seconds = 10.0
    """Longest time that the end of a worker takes."""
    breaker_threshold: Positive = 3
    """After so many batches in a row that fail as a whole the worker stops answering, and tries."""
    breaker_retry: Seconds = 1.0
    """The wait before it tries again."""
    watchdog: Seconds = 60.0
    """Without progress for so long although requests wait, the process ends itself."""
