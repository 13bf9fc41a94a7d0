"""The sections of the settings that belong to no other room: topics, admin, log, tracing and so on.

Everything that can be set, composed of the sections that the rooms own.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from headrace.config.gateway import GatewaySettings
from headrace.core.fields import Host, Line, Place, Prefix, Secret, Section, Topic
from headrace.kafka.dead_letters import DeadLetterSettings
from headrace.kafka.settings import KafkaSettings
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.model.errors import StoreError
from headrace.model.places import Places, places_of
from headrace.security.keys import SIGNING, public_key_bytes
from headrace.trainer.settings import GateSettings, TrainerSettings
from headrace.worker.settings import WorkerSettings
from headrace_schemas.paths import RequestShape, compile_copy, compile_shape
from headrace_schemas.topics import (
    DAY_MS,
    DEAD_LETTERS,
    IDEMPOTENCY,
    MAX_REQUEST_BYTES,
    REQUESTS,
    RESULTS,
    TopicNames,
    topics,
)

DEFAULT_ADMIN_PORT = 9464
ADMIN_NEIGHBOURS = 100

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}=[!-~]([ -~]*[!-~])?")

Milliseconds = Annotated[int, Meta(gt=0, le=2**63 - 1)]


class TopicsSettings(Section, frozen=True, kw_only=True):
    """A name that is not set is ``prefix`` followed by the topic's own name, such as ``classify.requests``.

    Retentions are in milliseconds; one that is not set is the topic's usual one. Raises ValueError for a prefix that
    Kafka refuses, for two topics of one name, and for results that are kept for less long than requests.
    """

    prefix: Prefix = ""
    """What the names of all topics begin with, where they are not set themselves."""
    partitions: Annotated[int, Meta(gt=0, le=100_000)] = 4
    """Partitions of the answering path's topics, when `headrace topics apply` makes them."""
    requests: Topic | None = None
    """The topic of texts to be labelled; by default prefix and classify.requests."""
    results: Topic | None = None
    """The topic of answers; by default prefix and classify.results."""
    dead_letters: Topic | None = None
    """The topic of records that could not be used; by default prefix and classify.dead-letters."""
    labels: Topic | None = None
    """The topic of labelled texts; by default prefix and classify.labels."""
    models: Topic | None = None
    """The topic of versions and aliases; by default prefix and classify.models."""
    workers: Topic | None = None
    """The topic of what workers tell each other; by default prefix and classify.workers."""
    machine_labels: Topic | None = None
    """The topic of teachers' labels; by default prefix and classify.machine-labels."""
    reviews: Topic | None = None
    """The topic of labels for requests that were answered without one; by default prefix and classify.reviews."""
    teaching: Topic | None = None
    """The topic of what labellers spend, and how they stand; by default prefix and classify.teaching."""
    keys: Topic | None = None
    """The topic of API keys; by default prefix and classify.keys."""
    usage: Topic | None = None
    """The topic of what each API key asked of the gateway; by default prefix and classify.usage."""
    idempotency: Topic | None = None
    """The topic of calls that had an Idempotency-Key; by default prefix and classify.idempotency."""
    requests_retention_ms: Milliseconds | None = None
    """How long requests are kept; by default the topic's usual time."""
    results_retention_ms: Milliseconds | None = None
    """How long answers are kept; at least as long as requests."""
    dead_letters_retention_ms: Milliseconds | None = None
    """How long dead letters are kept; by default the topic's usual time."""
    idempotency_retention_ms: Milliseconds | None = None
    """How long the gateway keeps an Idempotency-Key; by default a day, and never longer than requests are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
            IDEMPOTENCY: None if self.idempotency_ms == DAY_MS else self.idempotency_ms,
        }
        return {name: ms for name, ms in given.items() if ms is not None}

    @property
    def idempotency_ms(self) -> int:
        """How long an Idempotency-Key is kept: its answer is found by its requests, so no longer than they are."""
        own = DAY_MS if self.idempotency_retention_ms is None else self.idempotency_retention_ms
        return own if self.requests_retention_ms is None else min(own, self.requests_retention_ms)

    def names(self) -> TopicNames:
        """The name of each topic, derived where it is not set."""
        derived = {topic.field: topic.name for topic in topics(self.prefix)}
        return TopicNames(**{field: getattr(self, field) or name for field, name in derived.items()})


class AdminSettings(Section, frozen=True, kw_only=True):
    """Where /healthz, /readyz and /metrics are served. A port that is set is taken, or the process ends; member N of
    several uses port + N. By default it is the first free one from DEFAULT_ADMIN_PORT on.
    """

    host: Host = "127.0.0.1"
    """The address on which /healthz, /readyz and /metrics are served."""
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    """The port of /healthz, /readyz and /metrics; by default the first free one from 9464 on, with 0 any free one.
    Member N of several uses port + N."""

    @property
    def neighbours(self) -> int:
        """How many ports behind its own a member may take instead: one that was named is meant."""
        return ADMIN_NEIGHBOURS if self.port is None else 0

    def port_of(self, slot: int) -> int:
        """The port of the member in ``slot``, counted from 0; 0 is any."""
        if self.port == 0:
            return 0
        return (DEFAULT_ADMIN_PORT if self.port is None else self.port) + slot


class LogSettings(Section, frozen=True, kw_only=True):
    """How much is logged, and whether for people or for machines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged."""
    format: Literal["text", "json"] = "text"
    """Whether logs are for people or for machines."""


class TracingSettings(Section, frozen=True, kw_only=True):
    """Where spans are sent, and of how many traces. Without an ``endpoint`` there is no tracing, and it costs nothing.

    Raises ValueError for an endpoint that is no address, and for headers that are none.
    """

    endpoint: Line | None = None
    """The address of a collector that takes OTLP over HTTP, such as http://localhost:4318; without it nothing is
    traced."""
    headers: Secret | None = None
    """Headers of what is sent to the collector, as `name=value`, several with commas between."""
    ca_file: Place | None = None
    """The CA (PEM) of the collector's certificate; by default those that the machine trusts."""
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """The fraction of the traces that begin here, of batches and calls, that is recorded."""
    follow: bool = True
    """Record also what belongs to a trace that its sender records (the flag of `traceparent`), whatever the ratio is;
    without, who sends requests can't decide what is recorded."""
    links: Annotated[int, Meta(ge=0, le=128)] = 32
    """How many traces of its requests a batch's spans link to, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint is not None:
            _check_address(self.endpoint)
        self.sent_headers()

    @property
    def address(self) -> str | None:
        """Where spans are posted to: the endpoint, with OTLP's path unless it has one."""
        if self.endpoint is None or urlsplit(self.endpoint).path.strip("/"):
            return self.endpoint
        return f"{self.endpoint.rstrip('/')}/v1/traces"

    def sent_headers(self) -> dict[str, str]:
        """The headers by name. Raises ValueError."""
        if self.headers is None:
            return {}
        given = [one.strip(" ") for one in self.headers.reveal().split(",")]
        if not all(map(_HEADER.fullmatch, given)):
            # Their values are secret.
            raise ValueError("headers: write name=value, several with commas between")
        return {name: value for name, _, value in (one.partition("=") for one in given)}


def _check_address(given: str) -> None:
    try:
        parts = urlsplit(given)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise ValueError(f"endpoint is {given!r}, and has to be an address such as http://localhost:4318")
    if parts.username is not None or parts.password is not None:
        raise ValueError("endpoint: a password has no place in an address; tracing.headers is a secret")


class StoreSettings(Section, frozen=True, kw_only=True):
    """Where artifacts, jobs, checkpoints and outcomes may lie: below the folders and URIs in ``allowed``.

    Empty, it is ``trainer.store`` alone. Raises ValueError for what names no place.
    """

    allowed: tuple[str, ...] = ()
    """Folders and URIs below which artifacts, jobs and checkpoints may lie; empty, it is trainer.store alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            places_of(self.allowed)
        except StoreError as error:
            raise ValueError(f"allowed: {error}") from error


class SigningSettings(Section, frozen=True, kw_only=True):
    """Who signs versions, by the private key in ``key_file``, and whose signatures are asked for.

    ``trusted`` are public keys as `headrace models keygen` prints them; where there is one, a worker and a trainer
    refuse every version that none of them signed. Raises ValueError for what is no such key.
    """

    key_file: Place | None = None
    """The private key that signs versions, as `headrace models keygen` makes it."""
    trusted: tuple[str, ...] = ()
    """Public keys; where there is one, versions that none of them signed are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.trusted:
            public_key_bytes(SIGNING, key)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each section is a frozen struct that checks its own combinations; here are those across sections.

    Raises ValueError, as every section does, naming the keys that don't go together.
    """

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicsSettings = TopicsSettings()
    requests: RequestShape = RequestShape()
    worker: WorkerSettings = WorkerSettings()
    trainer: TrainerSettings = TrainerSettings()
    gate: GateSettings = GateSettings()
    teacher: TeacherSettings = TeacherSettings()
    labeller: LabellerSettings = LabellerSettings()
    gateway: GatewaySettings = GatewaySettings()
    store: StoreSettings = StoreSettings()
    signing: SigningSettings = SigningSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    def __post_init__(self) -> None:
        try:
            compile_shape(self.requests)
            compile_copy(self.requests)
        except ValueError as error:
            raise ValueError(f"requests: {error}") from error
        if self.requests.max_text_bytes > MAX_REQUEST_BYTES:
            raise ValueError(
                f"requests.max_text_bytes is {self.requests.max_text_bytes}, but the requests topic takes records of "
                f"at most {MAX_REQUEST_BYTES} bytes"
            )
        rebalance_s = self.kafka.rebalance_timeout_ms / 1000
        heartbeat_s = self.kafka.heartbeat_interval_ms / 1000
        if self.worker.revoke_timeout + heartbeat_s >= rebalance_s:
            raise ValueError(
                f"worker.revoke_timeout is {self.worker.revoke_timeout:g} s, but has to be below "
                f"{rebalance_s - heartbeat_s:g} s, or a rebalance evicts a worker that still waits for its answers: "
                f"kafka.rebalance_timeout_ms allows {rebalance_s:g} s, of which a worker may lose "
                f"kafka.heartbeat_interval_ms ({heartbeat_s:g} s) until it learns of the rebalance"
            )

    def places(self) -> Places:
        """Where versions may lie. Raises StoreError when ``trainer.store`` names no place."""
        if self.store.allowed:
            return places_of(self.store.allowed)
        return places_of((self.trainer.store,), "store.allowed, by default trainer.store")
