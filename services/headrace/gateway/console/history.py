"""Who did what, as the log has it: aliases, trainings, certificates and rules of labels, API keys, erased labels.

Compaction keeps the last record of each key, so this reaches back only as far as the topics still do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

import msgspec

from headrace.kafka.interface import Cluster, NotAuthorizedError, UnknownTopicError
from headrace.kafka.range_reader import read_topic
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.headers import BY
from headrace_schemas.records import (
    ApiKey,
    Certificate,
    LabelRule,
    ModelAlias,
    ModelsRecord,
    ThresholdRaise,
    TrainingOrder,
)

if TYPE_CHECKING:
    from headrace.config import Settings

MOST = 200
LAST_LABELS = 20_000
"""How many of the last records of the labels topic are searched for erasures."""
TRAINER = "trainer"


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody did to ``about``. ``by`` is None where the record does not say it."""

    at_ms: int
    did: str
    about: str
    by: str | None = None
    reason: str | None = None


class History(msgspec.Struct, frozen=True):
    """The last MOST deeds, the newest first. ``unread`` says in words what could not be read."""

    deeds: list[Deed]
    unread: list[str]


async def read_history(cluster: Cluster, settings: Settings, keys: Iterable[ApiKey]) -> History:
    """What the topics of models and labels and the API ``keys`` tell. Raises a KafkaError."""
    names, found, unread = settings.topics.names(), deeds_of_keys(keys), []
    for topic, deeds in (
        (names.models, _of_models(cluster, names.models, settings.worker.model_name)),
        (names.labels, _of_labels(cluster, names.labels)),
    ):
        try:
            found += [deed async for deed in deeds]
        except (UnknownTopicError, NotAuthorizedError) as error:
            unread.append(f"{topic}: {error}")
    return History(sorted(found, key=lambda deed: -deed.at_ms)[:MOST], unread)


def deeds_of_keys(keys: Iterable[ApiKey]) -> list[Deed]:
    """Who made and revoked API keys."""
    found = []
    for key in keys:
        about = f"API key {key.id}" + (f" ({key.note})" if key.note else "")
        found.append(Deed(key.created_at_ms, "made", f"{about}, {', '.join(key.roles)}", key.made_by))
        if key.revoked_at_ms is not None:
            found.append(Deed(key.revoked_at_ms, "revoked", about, key.revoked_by))
    return found


def deed_of_model(record: ModelsRecord, before: ModelAlias | None) -> Deed | None:
    """What somebody did, by a record of classify.models; ``before`` is the alias before it."""
    match record:
        case ModelAlias():
            if before is not None and before.version == record.version:
                did = "pinned" if record.pinned else "unpinned"
            else:
                did = "moved"
            return Deed(record.moved_at_ms, did, f"{record.alias} to {record.version}", record.by, record.reason)
        case TrainingOrder():
            return Deed(record.ordered_at_ms, "ordered", "a training", record.by, record.reason)
        case Certificate():
            allowed = f"{record.version} from a score of {record.threshold:.3f} on, {record.disagree:.2%} wrong at most"
            return Deed(record.certified_at_ms, "certified", allowed, record.by)
        case ThresholdRaise():
            about = f"the threshold of {record.version} to {record.threshold:.3f}"
            return Deed(record.raised_at_ms, "raised", about, TRAINER, record.reason)
        case LabelRule():
            became = "no longer" if record.becomes is None else f"as {record.becomes}"
            return Deed(record.decided_at_ms, "ruled", f"{record.label} is learnt {became}", record.by, record.reason)
    return None


async def _of_models(cluster: Cluster, topic: str, name: str) -> AsyncIterator[Deed]:
    aliases: dict[str, ModelAlias] = {}
    async for raw in read_topic(cluster, topic, "versions"):
        try:
            record = decode_models_record(raw.value)
        except WireError:  # whoever follows the topic logs it
            continue
        if record is None or getattr(record, "name", None) != name:
            continue
        before = aliases.get(record.alias) if isinstance(record, ModelAlias) else None
        if isinstance(record, ModelAlias):
            aliases[record.alias] = record
        if (deed := deed_of_model(record, before)) is not None:
            yield deed


async def _of_labels(cluster: Cluster, topic: str) -> AsyncIterator[Deed]:
    async for record in read_topic(cluster, topic, "labels", last=LAST_LABELS):
        if record.value is None and record.discarded is None:
            by = next((value for name, value in reversed(record.headers) if name == BY and value is not None), None)
            about = f"the label {(record.key or b'').decode('utf-8', 'replace')}"
            yield Deed(record.timestamp, "erased", about, None if by is None else by.decode("utf-8", "replace"))
