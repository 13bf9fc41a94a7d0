"""The sections of the settings that belong to no other room: topics, admin, log."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.core.public_keys import SIGNING, public_key_bytes
from headrace.model.errors import StoreError
from headrace.model.places import places_of
from headrace_schemas.topics import DEAD_LETTERS, LABELS, MODELS, REQUESTS, RESULTS, WORKERS, topics

Positive = Annotated[int, Meta(gt=0)]


class TopicNames(msgspec.Struct, frozen=True, kw_only=True):
    """The topics' names, as they are on the cluster."""

    requests: str
    results: str
    dead_letters: str
    labels: str
    models: str
    workers: str


class TopicsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A name that is not set is ``prefix`` followed by the topic's own name, such as ``classify.requests``.

    Retentions are in milliseconds; one that is not set is the topic's usual one. Raises ValueError for a prefix that
    Kafka refuses, for two topics of one name, and for results that are kept for less long than requests.
    """

    prefix: str = ""
    partitions: Annotated[int, Meta(gt=0)] = 4
    requests: str | None = None
    results: str | None = None
    dead_letters: str | None = None
    labels: str | None = None
    models: str | None = None
    workers: str | None = None
    requests_retention_ms: Positive | None = None
    results_retention_ms: Positive | None = None
    dead_letters_retention_ms: Positive | None = None

    def __post_init__(self) -> None:
        kept = {
            topic.name: topic.retention_ms or 0 for topic in topics(self.prefix, self.partitions, self.retention_ms())
        }
        if (answers := kept[self.prefix + RESULTS]) < (asked := kept[self.prefix + REQUESTS]):
            raise ValueError(
                f"results_retention_ms is {answers}, but has to be at least requests_retention_ms ({asked}): a request "
                "whose answer is gone can't be told from one that was never answered, and a reader that was away for "
                "as long finds a hole"
            )
        names = msgspec.structs.astuple(self.names())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two topics are both named {twice[0]}: each needs a name of its own")

    def retention_ms(self) -> dict[str, int]:
        """The retentions that are set, by the topics' own names."""
        given = {
            REQUESTS: self.requests_retention_ms,
            RESULTS: self.results_retention_ms,
            DEAD_LETTERS: self.dead_letters_retention_ms,
        }
        return {name: ms for name, ms in given.items() if ms is not None}

    def names(self) -> TopicNames:
        """The name of each topic, derived where it is not set."""
        return TopicNames(
            requests=self.requests or self.prefix + REQUESTS,
            results=self.results or self.prefix + RESULTS,
            dead_letters=self.dead_letters or self.prefix + DEAD_LETTERS,
            labels=self.labels or self.prefix + LABELS,
            models=self.models or self.prefix + MODELS,
            workers=self.workers or self.prefix + WORKERS,
        )


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where /healthz, /readyz and /metrics are served. Port 0 takes a free one; member N of several uses port + N."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464

    def port_of(self, slot: int) -> int:
        """The port of the member in ``slot``, counted from 0."""
        return self.port + slot if self.port else 0


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is logged, and whether for people or for machines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where artifacts, jobs, checkpoints and outcomes may lie: below the folders and URIs in ``allowed``.

    Empty, it is ``trainer.store`` alone. Raises ValueError for what names no place.
    """

    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            places_of(self.allowed)
        except StoreError as error:
            raise ValueError(f"allowed: {error}") from error


class SigningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs versions, by the private key in ``key_file``, and whose signatures are asked for.

    ``trusted`` are public keys as `headrace models keygen` prints them; where there is one, a worker and a trainer
    refuse every version that none of them signed. Raises ValueError for what is no such key.
    """

    key_file: str | None = None
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in self.trusted:
            public_key_bytes(SIGNING, key)
