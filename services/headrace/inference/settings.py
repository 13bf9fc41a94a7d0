"""What can be set of a worker; times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from headrace.core.resume import LARGEST_MAX_BATCH
from headrace.core.starts import StartError, parse_start

Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every worker of a group has at most the ``max_batch`` of the claim on its results topic: resuming looks back by
    that.
    """

    group: str = "headrace"
    model: str = "champion"
    """A URI of an artifact, or an alias on the models topic, which is followed."""
    model_name: str = "default"
    """Which model's aliases are meant."""
    keep_previous: bool = True
    """Hold the alias's previous version in memory too, so that a rollback needs no loading."""
    load_timeout: Seconds = 300.0
    """Longest wait for a version to be loaded; past it the load has failed, and is tried again."""
    start_from: str = "earliest"
    """Where a new group begins: earliest, latest, or a time as ISO 8601, without a zone in UTC."""
    backend: Literal["cpu", "cuda", "reference", "constant"] = "cpu"
    """What computes; constant has no model and tells what the rest costs."""
    threads: Positive = 1
    max_batch: Annotated[int, Meta(gt=0, le=LARGEST_MAX_BATCH)] = 1024
    max_batch_bytes: Positive = 1 << 20
    waiting_per_partition: Positive = 4096
    """Fetched requests held of one partition before its fetching pauses."""
    results_format: Literal["json", "msgpack"] = "json"
    ranking: Annotated[int, Meta(ge=0, le=20)] = 0
    """How many labels, best first, an answer ranks."""
    commit_every: Seconds = 0.5
    publish_timeout: Seconds = 30.0
    """Longest wait for an acknowledgement; past it the producer is replaced and the partition resumes."""
    revoke_timeout: Seconds = 5.0
    """Longest time that giving up partitions takes in a rebalance: answers that are on their way, and the release.

    With kafka.heartbeat_interval_ms, after which a member learns of the rebalance, below kafka.rebalance_timeout_ms.
    """
    drain_timeout: Seconds = 10.0
    breaker_threshold: Positive = 3
    breaker_retry: Seconds = 1.0
    watchdog: Seconds = 60.0
    """Without progress for so long although requests wait, the process ends itself."""

    def __post_init__(self) -> None:
        try:
            parse_start(self.start_from)
        except StartError as error:
            raise ValueError(f"start_from: {error}") from error
