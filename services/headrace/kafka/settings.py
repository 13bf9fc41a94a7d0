"""How to reach a Kafka cluster and how patient to be with it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.core.secret import Secret

Positive = Annotated[int, Meta(gt=0)]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connection, security, group and batching settings; sizes in bytes, times in milliseconds.

    ``bootstrap`` is one ``host:port`` or several with commas between. ``idempotent`` makes the broker drop what a
    producer's own retry repeats, ``static_members`` lets a restarted member keep its partitions; the embedded broker
    can do neither. A dead member is found after the session timeout, and a revoke callback has the rebalance timeout.
    ``delivery_timeout_ms`` bounds every produce.
    """

    bootstrap: str = "127.0.0.1:9092"
    client_id: str = "headrace"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    request_timeout_ms: Positive = 20_000
    retry_backoff_ms: Positive = 100
    metadata_max_age_ms: Positive = 30_000
    static_members: bool = True
    session_timeout_ms: Positive = 6_000
    heartbeat_interval_ms: Positive = 500
    rebalance_timeout_ms: Positive = 10_000
    fetch_max_wait_ms: Positive = 500
    fetch_max_bytes: Positive = 50 * 1024 * 1024
    max_partition_fetch_bytes: Positive = 1024 * 1024
    idempotent: bool = True
    max_batch_bytes: Positive = 512 * 1024
    max_request_size: Positive = 2 * 1024 * 1024
    delivery_timeout_ms: Positive = 30_000
    stop_timeout_ms: Positive = 5_000

    def __post_init__(self) -> None:
        if not self.bootstrap.strip():
            raise ValueError("bootstrap is empty; give the cluster's address as host:port")
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms is {self.heartbeat_interval_ms}, but may be at most a third of "
                f"session_timeout_ms ({self.session_timeout_ms}), or one lost heartbeat evicts a member"
            )
        if self.request_timeout_ms <= self.rebalance_timeout_ms:
            raise ValueError(
                f"request_timeout_ms is {self.request_timeout_ms}, but has to exceed rebalance_timeout_ms "
                f"({self.rebalance_timeout_ms}): joining a group is one request that waits for the whole rebalance"
            )
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username and sasl_password")
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("ssl_certfile and ssl_keyfile go together; only one of them is set")


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that every aiokafka client takes. Raises ValueError when a certificate file is missing."""
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
    }


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(settings, name)
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{name} is {file}, but there is no such file")
    context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.ssl_certfile:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    return context
