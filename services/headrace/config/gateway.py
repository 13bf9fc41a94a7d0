"""The settings of the gateway; times in seconds, sizes in bytes.

They stand here and not in their room: the gateway is built on the client, and the client reads the settings.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.core.fields import LARGEST, LONGEST_S, Host, Line, Name, Place, Secret, Section

Bytes = Annotated[int, Meta(ge=1024, le=LARGEST)]
Count = Annotated[int, Meta(gt=0, le=LARGEST)]
Seconds = Annotated[float, Meta(gt=0, le=LONGEST_S)]

DEFAULT_PORT = 8080
LEAST_SECRET = 32


class GatewaySettings(Section, frozen=True, kw_only=True):
    """Where the gateway listens, whom it lets in, and how much it takes. Raises ValueError for half of a TLS
    pair, and for a short secret.
    """

    host: Host = "127.0.0.1"
    """The address on which HTTP is served."""
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_PORT
    """The port on which HTTP is served; 0 is any free one."""
    group: Name = "headrace-gateway"
    """The group by which gateways divide the results partitions among them."""
    keys: bool = True
    """Whether a caller needs an API key; without, only on an address of this machine."""
    hosts: tuple[str, ...] = ()
    """Names by which callers may reach it (the header Host), without ports; empty, on an address of this machine its
    own names alone, elsewhere any."""
    origins: tuple[str, ...] = ()
    """Origins of pages that browsers may let call it (CORS), such as https://desk.example.com; empty, none."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies in front of it, whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    session_secret: Secret | None = None
    """By what sessions of the console are sealed into their cookies, the same at all gateways: then a session holds at
    each of them. Without, it holds at the one that was logged in to."""
    guesses: Annotated[int, Meta(gt=0, le=LARGEST)] = 60
    """Wrong API keys from one address, and places of others by one API key, that are answered in a minute; what comes
    past that is told when to come again."""
    tls_certfile: Place | None = None
    """The certificate (PEM) that HTTP is served with; without, it is not encrypted."""
    tls_keyfile: Place | None = None
    """The private key (PEM) of tls_certfile."""
    tls_key_password: Secret | None = None
    """The password of tls_keyfile."""
    max_texts: Annotated[int, Meta(gt=0, le=100_000)] = 10_000
    """Most texts of one call."""
    max_body_bytes: Bytes = 16 * 1024 * 1024
    """Largest body of one call."""
    max_held_bytes: Bytes = 256 * 1024 * 1024
    """Bodies that may be held at once, in bytes of all; who comes later is told when to come again."""
    max_header_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    """Largest head of one call: its line and headers."""
    max_connections: Count = 4096
    """Connections at once; more are told when to come again, and closed."""
    max_waiting: Count = 100_000
    """Texts that may wait for their answers at once; one API key has at most half of them."""
    max_idempotency_keys: Annotated[int, Meta(gt=0, le=10_000_000)] = 100_000
    """Keys of calls (Idempotency-Key) that are kept at once; one tenant has at most half of them."""
    head_timeout: Seconds = 10.0
    """How long a caller may take to send the head of a call, also of the first on a connection."""
    body_timeout: Seconds = 30.0
    """How long a caller may take to send a body."""
    write_timeout: Seconds = 30.0
    """How long a caller may leave an answer unread before the connection is cut."""
    keep_alive: Seconds = 60.0
    """How long a connection may be idle between two calls."""
    timeout: Seconds = 30.0
    """How long a call waits for its answers when it does not say."""
    longest_timeout: Annotated[float, Meta(gt=0, le=3600)] = 300.0
    """The longest that a call may wait."""
    drain: Seconds = 10.0
    """At SIGTERM, how long answers are waited for; callers that still wait then get the ids of their requests."""
    realm: Line = "headrace"
    """What callers without an API key are told that they need one for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile go together: set both, or neither")
        if self.session_secret is not None and len(self.session_secret.reveal()) < LEAST_SECRET:
            raise ValueError(f"session_secret has under {LEAST_SECRET} characters; `openssl rand -hex 32` makes one")
