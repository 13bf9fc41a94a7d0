"""The topics as data: what is on each, how it is kept, who writes and reads it; and the keys of compacted ones."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, assert_never, get_args

import msgspec

from headrace_schemas.errors import BadKeyError
from headrace_schemas.records import (
    ApiKey,
    Attempt,
    BarredText,
    Certificate,
    ClassifyRequest,
    ClassifyResult,
    DeadLetter,
    IdempotentCall,
    LabelledText,
    LabellerState,
    LabelRule,
    MachineLabel,
    MachineLabelsRecord,
    MaxBatch,
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    ResultsClaim,
    Review,
    Spending,
    TeachingRecord,
    TextLease,
    ThresholdRaise,
    Training,
    TrainingOrder,
    Usage,
    Verdict,
    WorkersRecord,
)

# What the promise "nothing lost" needs of the cluster: an acknowledged record is on two brokers at least, and no
# broker that lacks it may lead its partition.
REPLICATION: Final = 3
MIN_INSYNC_REPLICAS: Final = 2

REQUESTS: Final = "classify.requests"
RESULTS: Final = "classify.results"
DEAD_LETTERS: Final = "classify.dead-letters"
LABELS: Final = "classify.labels"
MODELS: Final = "classify.models"
WORKERS: Final = "classify.workers"
MACHINE_LABELS: Final = "classify.machine-labels"
REVIEWS: Final = "classify.reviews"
TEACHING: Final = "classify.teaching"
KEYS: Final = "classify.keys"
USAGE: Final = "classify.usage"
IDEMPOTENCY: Final = "classify.idempotency"

# An answer repeats its request's key, id and headers, and a dead letter repeats the request whole and adds headers:
# both must fit whatever fitted there.
MAX_REQUEST_BYTES: Final = 1024 * 1024
MAX_ANSWER_BYTES: Final = 2 * MAX_REQUEST_BYTES

DAY_MS: Final = 24 * 3600 * 1000
KAFKA_SEGMENT_MS: Final = 7 * DAY_MS
"""How long Kafka fills a segment of a topic that says nothing else."""
_READ_FROM_ITS_BEGINNING: Final = {"segment.ms": str(DAY_MS), "min.cleanable.dirty.ratio": "0.1"}
# An erased text is gone from the disks a week after its tombstone, once a record follows in its partition: only then is
# the segment that holds them closed, and no other is compacted.
_ERASED_IN_A_WEEK: Final = {"max.compaction.lag.ms": str(7 * DAY_MS), "delete.retention.ms": str(7 * DAY_MS)}
_LEGAL = re.compile(r"[A-Za-z0-9._-]*")
_LONGEST_NAME = 249  # Kafka's own limit
# The slash parts a key, so no part may hold one; the rest is what Kafka allows in a topic's name, and a file's name.
_KEY_PART = re.compile(r"[A-Za-z0-9._-]{1,249}")
_REVIEW_KEY = re.compile(rb"([A-Za-z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,19})")


class TopicNames(msgspec.Struct, frozen=True, kw_only=True):
    """The name of each topic on a cluster."""

    requests: str
    results: str
    dead_letters: str
    labels: str
    models: str
    workers: str
    machine_labels: str
    reviews: str
    teaching: str
    keys: str
    usage: str
    idempotency: str


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. ``retention_ms`` None keeps every record (a compacted topic keeps the last of each key).

    ``config`` holds further settings under Kafka's own keys, ``records`` the types of its values, ``key`` what a key
    means and ``partitioning`` how a record finds its partition.
    """

    name: str
    title: str
    partitions: int
    cleanup_policy: str
    retention_ms: int | None
    records: tuple[type, ...]
    key: str
    partitioning: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    config: dict[str, str] = {}

    @property
    def field(self) -> str:
        """The topic's name as a field of settings: ``dead_letters`` of classify.dead-letters."""
        return self.name.rpartition("classify.")[2].replace("-", "_")

    def settings(self, replication: int = REPLICATION) -> dict[str, str]:
        """Return all settings under Kafka's keys, for a cluster that keeps ``replication`` copies of a record.

        Fewer than three copies can't give the promise: then writes go on with one copy, and the caller says so.
        """
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(-1 if self.retention_ms is None else self.retention_ms),
            "min.insync.replicas": str(MIN_INSYNC_REPLICAS if replication >= REPLICATION else 1),
            "unclean.leader.election.enable": "false",
            **self.config,
        }


def topics(
    prefix: str = "", partitions: int = 4, retention_ms: Mapping[str, int] = MappingProxyType({})
) -> tuple[Topic, ...]:
    """Return every topic, each named ``prefix`` + its own name, the answering path's with ``partitions`` partitions.

    ``retention_ms`` is how long topics, by their own names, keep a record, where that is not as usual; see
    :func:`keeping`. Raises ValueError for a prefix that Kafka would refuse, or fewer than one partition.
    """
    if not _LEGAL.fullmatch(prefix) or len(prefix) + len(MACHINE_LABELS) > _LONGEST_NAME:
        most = _LONGEST_NAME - len(MACHINE_LABELS)
        raise ValueError(
            f"topic prefix {prefix!r}: Kafka allows letters, digits, '.', '_' and '-', and here at most {most} of them"
        )
    if partitions < 1:
        raise ValueError(f"{partitions} partitions: a topic has at least one")
    return tuple(
        msgspec.structs.replace(
            keeping(topic, retention_ms[topic.name]) if topic.name in retention_ms else topic, name=prefix + topic.name
        )
        for topic in _unprefixed(partitions)
    )


def keeping(topic: Topic, retention_ms: int) -> Topic:
    """Return ``topic`` with records kept for ``retention_ms`` milliseconds, and for no more than twice as long.

    Kafka deletes whole segments, once the last record of one is old enough. By its default a segment is filled for a
    week, so what comes in slowly would stay for a week longer; here for no longer than the retention itself.
    Raises ValueError for a compacted topic, which keeps the last record of each key.
    """
    if topic.retention_ms is None:
        raise ValueError(f"{topic.name} keeps the last record of each key, so it has no retention")
    segment = {"segment.ms": str(min(retention_ms, KAFKA_SEGMENT_MS))}
    return msgspec.structs.replace(topic, retention_ms=retention_ms, config={**topic.config, **segment})


def version_key(name: str, version: str) -> bytes:
    """Return ``version/NAME/VERSION``; raises BadKeyError for a part that a key can't hold."""
    return _key("version", name=name, version=version)


def alias_key(name: str, alias: str) -> bytes:
    """Return ``alias/NAME/ALIAS``; raises BadKeyError for a part that a key can't hold."""
    return _key("alias", name=name, alias=alias)


def verdict_key(name: str, version: str) -> bytes:
    """Return ``verdict/NAME/VERSION``; raises BadKeyError for a part that a key can't hold."""
    return _key("verdict", name=name, version=version)


def training_key(name: str) -> bytes:
    """Return ``training/NAME``; raises BadKeyError for a part that a key can't hold."""
    return _key("training", name=name)


def order_key(name: str) -> bytes:
    """Return ``order/NAME``; raises BadKeyError for a part that a key can't hold."""
    return _key("order", name=name)


def certificate_key(name: str, version: str) -> bytes:
    """Return ``certificate/NAME/VERSION``; raises BadKeyError for a part that a key can't hold."""
    return _key("certificate", name=name, version=version)


def threshold_key(name: str, version: str) -> bytes:
    """Return ``threshold/NAME/VERSION``; raises BadKeyError for a part that a key can't hold."""
    return _key("threshold", name=name, version=version)


def label_rule_key(name: str, label: str) -> bytes:
    """Return ``label-rule/NAME/DIGEST`` of a label, which may hold any character; raises BadKeyError for the name."""
    return _key("label-rule", name=name, label=text_key(label))


def text_key(text: str) -> str:
    """What a text is called in keys: the first 32 hexadecimal digits of its SHA-256 in UTF-8, composed (NFC)."""
    composed = unicodedata.normalize("NFC", text)
    return hashlib.sha256(composed.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def machine_label_key(text: str, teacher: str) -> bytes:
    """Return ``label/TEXT_KEY/TEACHER``; raises BadKeyError for a teacher that a key can't hold."""
    return _key("label", text=text_key(text), teacher=teacher)


def barred_key(text: str) -> bytes:
    """Return ``barred/TEXT_KEY``."""
    return _key("barred", text=text_key(text))


def spending_key(labeller: str, day: str, process: str) -> bytes:
    """Return ``spending/LABELLER/DAY/PROCESS``; raises BadKeyError for a part that a key can't hold."""
    return _key("spending", labeller=labeller, day=day, process=process)


def labeller_key(labeller: str) -> bytes:
    """Return ``labeller/LABELLER``; raises BadKeyError for a name that a key can't hold."""
    return _key("labeller", labeller=labeller)


def api_key_key(id_: str) -> bytes:
    """Return ``key/ID``; raises BadKeyError for an id that a key can't hold."""
    return _key("key", id=id_)


def usage_key(api_key: str, day: str, process: str) -> bytes:
    """Return ``usage/API_KEY/DAY/PROCESS``; raises BadKeyError for a part that a key can't hold."""
    return _key("usage", api_key=api_key, day=day, process=process)


def idempotent_call_key(key: str, attempt: str) -> bytes:
    """Return ``call/KEY/ATTEMPT``; raises BadKeyError for a part that a key can't hold."""
    return _key("call", key=key, attempt=attempt)


LEASE_KEYS: Final = b"lease/"


def text_lease_key(text: str, holder: str) -> bytes:
    """Return ``lease/TEXT/HOLDER``; raises BadKeyError for a part that a key can't hold."""
    return _key("lease", text=text, holder=holder)


def review_key(results: str, partition: int, offset: int) -> bytes:
    """Return ``RESULTS_TOPIC/PARTITION/OFFSET`` of the answer; raises BadKeyError for a topic that a key can't hold."""
    return _key(results, partition=str(partition), offset=str(offset))


def reviewed_place(key: bytes | None) -> tuple[str, int, int] | None:
    """The results topic, partition and offset of a key of :func:`review_key`; None for any other key."""
    found = _REVIEW_KEY.fullmatch(key or b"")
    return None if found is None else (found[1].decode(), int(found[2]), int(found[3]))


def claim_key(results: str, claimer: str | None = None) -> bytes:
    """Return ``claim/RESULTS_TOPIC/CLAIMER``, or ``claim/RESULTS_TOPIC`` of a claim that names no claimer.

    Raises BadKeyError for a part that a key can't hold.
    """
    return _key("claim", results=results) if claimer is None else _key("claim", results=results, claimer=claimer)


def max_batch_key(results: str, max_batch: int) -> bytes:
    """Return ``max-batch/RESULTS_TOPIC/NUMBER``; raises BadKeyError for a part that a key can't hold."""
    return _key("max-batch", results=results, max_batch=str(max_batch))


def attempt_key(results: str, partition: int) -> bytes:
    """Return ``attempt/RESULTS_TOPIC/PARTITION``; raises BadKeyError for a part that a key can't hold."""
    return _key("attempt", results=results, partition=str(partition))


def models_key(record: ModelsRecord) -> bytes:  # noqa: PLR0911 - one a kind
    """Return the key under which ``record`` is kept; raises BadKeyError as the functions above."""
    match record:
        case ModelVersion():
            return version_key(record.name, record.version)
        case ModelAlias():
            return alias_key(record.name, record.alias)
        case Verdict():
            return verdict_key(record.name, record.version)
        case Training():
            return training_key(record.name)
        case TrainingOrder():
            return order_key(record.name)
        case Certificate():
            return certificate_key(record.name, record.version)
        case ThresholdRaise():
            return threshold_key(record.name, record.version)
        case LabelRule():
            return label_rule_key(record.name, record.label)
        case ResultsClaim() | Attempt():
            return workers_key(record)
        case _:
            assert_never(record)


def workers_key(record: WorkersRecord) -> bytes:
    """Return the key under which ``record`` is kept; raises BadKeyError as the functions above."""
    match record:
        case ResultsClaim():
            return claim_key(record.results, record.claimer)
        case MaxBatch():
            return max_batch_key(record.results, record.max_batch)
        case Attempt():
            return attempt_key(record.results, record.partition)
        case _:
            assert_never(record)


def machine_labels_key(record: MachineLabelsRecord) -> bytes:
    """Return the key under which ``record`` is kept; raises BadKeyError as the functions above."""
    match record:
        case MachineLabel():
            return machine_label_key(record.text, record.teacher)
        case BarredText():
            return _key("barred", text=record.text_key)
        case _:
            assert_never(record)


def teaching_key(record: TeachingRecord) -> bytes:
    """Return the key under which ``record`` is kept; raises BadKeyError as the functions above."""
    match record:
        case Spending():
            return spending_key(record.labeller, record.day, record.process)
        case LabellerState():
            return labeller_key(record.labeller)
        case _:
            assert_never(record)


def _unprefixed(partitions: int) -> tuple[Topic, ...]:
    return (
        Topic(
            name=REQUESTS,
            title="Texts to label",
            partitions=partitions,
            cleanup_policy="delete",
            retention_ms=7 * DAY_MS,
            records=(ClassifyRequest,),
            key="The caller's own; texts of one key are answered in order. It is repeated on the answer.",
            partitioning="by key, or any partition",
            writers=("producers", "gateway"),
            readers=("worker", "labeller"),
            # A deadline counts from the record's timestamp, so one clock, the broker's, must set it.
            config={"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_REQUEST_BYTES)},
        ),
        Topic(
            name=RESULTS,
            title="Exactly one answer a reader accepts for every request",
            partitions=partitions,
            # Never compacted: workers and readers find their place by the answers that are there.
            cleanup_policy="delete",
            retention_ms=7 * DAY_MS,
            records=(ClassifyResult,),
            key="The key of the request.",
            partitioning="the partition number of the request, in the order of its offsets",
            writers=("worker",),
            readers=("consumers", "worker", "labeller", "gateway"),
            # By the broker's clock, as requests are: what lies between the two is how long an answer took.
            config={"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_ANSWER_BYTES)},
        ),
        Topic(
            name=DEAD_LETTERS,
            title="Requests that could not be answered and labels that can't be learnt from, as they were, and why",
            partitions=partitions,
            cleanup_policy="delete",
            retention_ms=30 * DAY_MS,
            records=(DeadLetter,),
            key="The key of the request or label.",
            partitioning="the partition number of the request or label",
            writers=("worker", "trainer"),
            readers=("operators",),
            config={"max.message.bytes": str(MAX_ANSWER_BYTES)},
        ),
        Topic(
            name=LABELS,
            title="Texts with their true label, to learn from",
            partitions=partitions,
            cleanup_policy="compact",
            retention_ms=None,
            records=(LabelledText,),
            key="The text's id, UTF-8; a later record replaces the earlier, a null value erases it.",
            partitioning="by key",
            writers=("labellers",),
            readers=("trainer", "labeller"),
            config=dict(_ERASED_IN_A_WEEK),
        ),
        Topic(
            name=MODELS,
            title="Model versions, the aliases that point at them, and how they came about",
            # One partition: a reader must see a version before the alias that points at it.
            partitions=1,
            cleanup_policy="compact",
            retention_ms=None,
            # What workers write is on a topic of theirs; what an older version's wrote here is still read.
            records=tuple(record for record in get_args(ModelsRecord) if record not in get_args(WorkersRecord)),
            key="version/NAME/VERSION, alias/NAME/ALIAS, verdict/NAME/VERSION, training/NAME, order/NAME, "
            "certificate/NAME/VERSION, threshold/NAME/VERSION or label-rule/NAME/DIGEST.",
            partitioning="one partition",
            writers=("trainer", "operators"),
            readers=("worker", "trainer", "labeller"),
            # Aliases move often, and every worker reads this topic from its beginning.
            config=dict(_READ_FROM_ITS_BEGINNING),
        ),
        Topic(
            name=WORKERS,
            title="Who writes which results topic, and what workers are about to try",
            # One partition: its order decides which of several claims was the first.
            partitions=1,
            cleanup_policy="compact",
            retention_ms=None,
            records=get_args(WorkersRecord),
            key="claim/RESULTS_TOPIC/CLAIMER, claim/RESULTS_TOPIC (copied from classify.models), "
            "max-batch/RESULTS_TOPIC/NUMBER or attempt/RESULTS_TOPIC/PARTITION.",
            partitioning="one partition",
            writers=("worker", "operators"),
            readers=("worker", "operators"),
            config=dict(_READ_FROM_ITS_BEGINNING),
        ),
        Topic(
            name=MACHINE_LABELS,
            title="Texts with a teacher's label, to learn from and never to judge by",
            # Apart from the labels of people: under one key compaction would delete a person's label.
            partitions=partitions,
            cleanup_policy="compact",
            retention_ms=None,
            records=get_args(MachineLabelsRecord),
            key="label/TEXT_KEY/TEACHER, where a null value erases, or barred/TEXT_KEY.",
            partitioning="by key",
            writers=("labeller", "operators"),
            readers=("trainer", "labeller"),
            config=dict(_ERASED_IN_A_WEEK),
        ),
        Topic(
            name=REVIEWS,
            title="Labels for requests that were answered without one",
            partitions=partitions,
            cleanup_policy="delete",
            retention_ms=30 * DAY_MS,
            records=(Review,),
            key="RESULTS_TOPIC/PARTITION/OFFSET of the answer; a null value takes its reviews back.",
            partitioning="the partition number of the answer",
            writers=("labeller", "labellers", "gateway"),
            readers=("consumers", "labeller", "gateway"),
        ),
        Topic(
            name=TEACHING,
            title="What labellers spend, and how they stand",
            # One partition: a labeller that is elected must see all that was spent before it spends.
            partitions=1,
            cleanup_policy="compact",
            retention_ms=None,
            records=get_args(TeachingRecord),
            key="spending/LABELLER/DAY/PROCESS or labeller/LABELLER.",
            partitioning="one partition",
            writers=("labeller", "operators"),
            readers=("labeller", "operators"),
            config=dict(_READ_FROM_ITS_BEGINNING),
        ),
        Topic(
            name=KEYS,
            title="Who may come to the gateway, and as what",
            # One partition: what was written last of all keys is known when its end is reached.
            partitions=1,
            cleanup_policy="compact",
            retention_ms=None,
            records=(ApiKey,),
            key="key/ID.",
            partitioning="one partition",
            writers=("operators",),
            readers=("gateway", "operators"),
            config=dict(_READ_FROM_ITS_BEGINNING),
        ),
        Topic(
            name=USAGE,
            title="What each API key asked of the gateway, by day",
            partitions=1,
            cleanup_policy="compact",
            retention_ms=None,
            records=(Usage,),
            key="usage/API_KEY/DAY/PROCESS.",
            partitioning="one partition",
            writers=("gateway",),
            readers=("operators",),
            config=dict(_READ_FROM_ITS_BEGINNING),
        ),
        Topic(
            name=IDEMPOTENCY,
            title="Calls of the gateway that had an Idempotency-Key, and who looks at which text in the console",
            # One partition: its order decides which of several gateways handles a call, and who gets a text.
            partitions=1,
            # Each attempt has a key of its own: compaction leaves how it ended, and never a later attempt alone.
            cleanup_policy="compact,delete",
            retention_ms=DAY_MS,
            records=(IdempotentCall, TextLease),
            key="call/KEY/ATTEMPT or lease/TEXT/HOLDER.",
            partitioning="one partition",
            writers=("gateway",),
            readers=("gateway", "operators"),
            # How long a key is kept counts by one clock, the broker's.
            config={"message.timestamp.type": "LogAppendTime", "segment.ms": str(DAY_MS)},
        ),
    )


def _key(kind: str, **parts: str) -> bytes:
    for field, part in parts.items():
        if not _KEY_PART.fullmatch(part):
            raise BadKeyError(field, f"{part!r} must be 1 to 249 of letters, digits, '.', '_' and '-'")
    return "/".join((kind, *parts.values())).encode()
