"""How to reach a Kafka cluster and how patient to be with it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from headrace.core.errors import UserError
from headrace.core.fields import LARGEST, Addresses, Line, Name, Place, Secret, Section

Positive = Annotated[int, Meta(gt=0, le=LARGEST)]


class KafkaSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connection, security, group and batching settings; sizes in bytes, times in milliseconds.

    ``bootstrap`` is one ``host:port`` or several with commas between. ``idempotent`` makes the broker drop what a
    producer's own retry repeats, ``static_members`` lets a restarted member keep its partitions; the embedded broker
    can do neither. A dead member is found after the session timeout, and a revoke callback has the rebalance timeout.
    ``delivery_timeout_ms`` bounds every produce.

    A compressed batch is unpacked piece by piece. A record in it that grows past ``max_record_bytes`` is read without
    its value: it is answered `failed`, and neither its value nor all of the batch is ever in memory.

    OAUTHBEARER takes its token from ``sasl_oauth_token_file``, or from ``sasl_oauth_token_provider``, a function named
    as ``package.module:function`` that takes nothing and returns the token. Either is asked at each connection.
    """

    bootstrap: Addresses = "127.0.0.1:9092"
    """Where the Kafka cluster is."""
    client_id: Name = "headrace"
    """The name by which brokers log this client and count its quotas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Whether the connection is encrypted (SSL) and whether it logs in (SASL)."""
    ssl_cafile: Place | None = None
    """Certificates (PEM) that the brokers' are checked by; by default those of the system."""
    ssl_certfile: Place | None = None
    """The certificate (PEM) by which this client shows who it is."""
    ssl_keyfile: Place | None = None
    """The private key (PEM) of ssl_certfile."""
    ssl_key_password: Secret | None = None
    """The password of ssl_keyfile."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """How to log in."""
    sasl_username: Line | None = None
    """The user of PLAIN and SCRAM."""
    sasl_password: Secret | None = None
    """The password of PLAIN and SCRAM."""
    sasl_oauth_token_file: Place | None = None
    """A file that holds the token of OAUTHBEARER, read at each connection."""
    sasl_oauth_token_provider: Line | None = None
    """A function, as package.module:function, that returns the token of OAUTHBEARER at each connection."""
    request_timeout_ms: Positive = 20_000
    """Longest wait for the answer to a request; above rebalance_timeout_ms."""
    retry_backoff_ms: Positive = 100
    """The wait before a request is tried again."""
    metadata_max_age_ms: Positive = 30_000
    """After so long the list of partitions and leaders is asked for anew."""
    static_members: bool = True
    """Let a restarted member keep its partitions; the embedded broker can not."""
    session_timeout_ms: Positive = 6_000
    """A member that was not heard for so long is dead, and its partitions go to others."""
    heartbeat_interval_ms: Positive = 500
    """How often a member is heard; at most a third of the session and rebalance timeouts."""
    rebalance_timeout_ms: Positive = 10_000
    """Longest time in which members may give up partitions."""
    fetch_max_wait_ms: Positive = 500
    """Longest time a broker holds a fetch while there is nothing new."""
    fetch_max_bytes: Positive = 50 * 1024 * 1024
    """Most bytes that a broker sends at once."""
    max_partition_fetch_bytes: Positive = 1024 * 1024
    """Most bytes of one partition that a broker sends at once."""
    max_record_bytes: Annotated[int, Meta(ge=2 * 1024 * 1024, le=LARGEST)] = 16 * 1024 * 1024
    """A record in a compressed batch that grows past this is read without its value and answered failed."""
    idempotent: bool = True
    """Let the broker drop what a producer's own retry repeats; the embedded broker can not."""
    max_batch_bytes: Positive = 512 * 1024
    """Most bytes of one batch that a producer sends."""
    max_request_size: Positive = 2 * 1024 * 1024
    """Most bytes of one request of a producer."""
    delivery_timeout_ms: Positive = 30_000
    """Longest wait for the acknowledgement of a record."""
    stop_timeout_ms: Positive = 5_000
    """Longest time that closing a connection takes."""
    away_after_ms: Positive = 10_000
    """A worker or trainer that no broker has answered for so long is not ready: /readyz says 503 and why."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("session_timeout_ms", "rebalance_timeout_ms"):
            if self.heartbeat_interval_ms * 3 > getattr(self, name):
                raise ValueError(
                    f"heartbeat_interval_ms is {self.heartbeat_interval_ms}, but may be at most a third of "
                    f"{name} ({getattr(self, name)}), or one lost heartbeat ends a member's lease"
                )
        if self.request_timeout_ms <= self.rebalance_timeout_ms:
            raise ValueError(
                f"request_timeout_ms is {self.request_timeout_ms}, but has to exceed rebalance_timeout_ms "
                f"({self.rebalance_timeout_ms}): joining a group is one request that waits for the whole rebalance"
            )
        if self.security_protocol.startswith("SASL"):
            self._check_login()
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("ssl_certfile and ssl_keyfile go together; only one of them is set")

    def _check_login(self) -> None:
        if self.sasl_mechanism != "OAUTHBEARER":
            if not (self.sasl_username and self.sasl_password):
                raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username and sasl_password")
        elif bool(self.sasl_oauth_token_file) == bool(self.sasl_oauth_token_provider):
            raise ValueError(
                "sasl_mechanism OAUTHBEARER needs sasl_oauth_token_file or sasl_oauth_token_provider, and not both"
            )


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that every aiokafka client takes.

    Raises UserError when a certificate or key can't be used, or the function that gives tokens can't be imported.
    """
    sasl = settings.security_protocol.startswith("SASL")
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "retry_backoff_ms": settings.retry_backoff_ms,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "security_protocol": settings.security_protocol,
        "ssl_context": _ssl_context(settings) if settings.security_protocol.endswith("SSL") else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.reveal() if settings.sasl_password else None,
        "sasl_oauth_token_provider": _tokens(settings) if sasl and settings.sasl_mechanism == "OAUTHBEARER" else None,
    }


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(settings, name)
        if file is not None and not Path(file).is_file():
            raise UserError(f"kafka.{name} is {file}, but there is no such file.")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except ssl.SSLError as error:
        raise UserError(f"kafka.ssl_cafile {settings.ssl_cafile} holds no certificates as PEM: {error}.") from error
    if settings.ssl_certfile:
        # Without a password OpenSSL would ask for one on the terminal.
        password = settings.ssl_key_password.reveal() if settings.ssl_key_password else ""
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password=password)
        except (ssl.SSLError, ValueError) as error:
            raise UserError(
                f"kafka.ssl_certfile {settings.ssl_certfile} and kafka.ssl_keyfile {settings.ssl_keyfile} can't be "
                f"used: {error}. Both have to be PEM and belong together; is kafka.ssl_key_password right?"
            ) from error
    return context


def _tokens(settings: KafkaSettings) -> Any:
    # aiokafka loads when a client is made, not with the settings.
    from headrace.kafka.aio.connection import Tokens, file_tokens, provided_tokens  # noqa: PLC0415

    if settings.sasl_oauth_token_file is not None:
        return Tokens(file_tokens(settings.sasl_oauth_token_file))
    return Tokens(provided_tokens(settings.sasl_oauth_token_provider or ""))
