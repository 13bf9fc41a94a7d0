"""Connecting to Kafka with aiokafka, and its errors in headrace's terms.

aiokafka says of every failed connection only that it was "unable to bootstrap". So one more connection is made to each
address, and its error is explained in words that name the setting to mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import client as their_client
from aiokafka import conn as their_connections
from aiokafka import errors as theirs
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, collect_hosts
from aiokafka.conn import create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest

from headrace.core.errors import UserError
from headrace.kafka.interface import (
    BrokerUnavailableError,
    ConsumerDeadError,
    KafkaError,
    NotAuthorizedError,
    NotTrustedError,
    OffsetOutOfRangeError,
    ProducerDeadError,
    RebalancedError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
    UnsupportedError,
)
from headrace.kafka.settings import KafkaSettings, client_options

REFUSALS = (
    theirs.TopicAuthorizationFailedError,
    theirs.GroupAuthorizationFailedError,
    theirs.ClusterAuthorizationFailedError,
)

# The first row that fits decides. For an error that fits none, aiokafka says whether it is retriable.
TRANSLATIONS: tuple[tuple[tuple[type[Exception], ...], type[KafkaError]], ...] = (
    ((theirs.UnknownTopicOrPartitionError, theirs.InvalidTopicError), UnknownTopicError),
    ((theirs.TopicAlreadyExistsError,), TopicExistsError),
    (
        (
            theirs.IllegalStateError,
            theirs.CommitFailedError,
            theirs.IllegalGenerationError,
            theirs.UnknownMemberIdError,
            theirs.RebalanceInProgressError,
        ),
        RebalancedError,
    ),
    (
        (
            theirs.ProducerClosed,
            theirs.ProducerFenced,
            theirs.OutOfOrderSequenceNumber,
            theirs.InvalidProducerEpoch,
            theirs.InvalidProducerIdMapping,
            theirs.UnknownProducerId,
        ),
        ProducerDeadError,
    ),
    ((theirs.ConsumerStoppedError,), ConsumerDeadError),
    (
        (theirs.MessageSizeTooLargeError, theirs.RecordTooLargeError, theirs.RecordListTooLargeError),
        RecordTooLargeError,
    ),
    (
        (
            theirs.SaslAuthenticationFailed,
            theirs.AuthenticationFailedError,
            theirs.UnsupportedSaslMechanismError,
        ),
        NotAuthorizedError,
    ),
    (
        (
            theirs.UnsupportedVersionError,
            theirs.IncompatibleBrokerVersion,
            theirs.UnrecognizedBrokerVersion,
            theirs.UnsupportedForMessageFormatError,
        ),
        UnsupportedError,
    ),
    (
        (theirs.KafkaTimeoutError, theirs.KafkaUnavailableError, theirs.KafkaConnectionError, TimeoutError, OSError),
        BrokerUnavailableError,
    ),
)


def translated(error: Exception, doing: str, *, needs: str = "Describe", topic: str | None = None) -> KafkaError:
    """Return ``error`` as a KafkaError of ours. Its message begins with ``doing``, which says what was under way.

    ``needs`` is the operation, in Kafka's words, that the user needs the right to on ``topic``, or on the topic that
    the error names.
    """
    if isinstance(error, theirs.OffsetOutOfRangeError) and error.args and isinstance(error.args[0], dict):
        return OffsetOutOfRangeError({(tp.topic, tp.partition): offset for tp, offset in error.args[0].items()})
    if isinstance(error, REFUSALS):
        return NotAuthorizedError(f"{doing} was refused: {_refused(error, needs, topic)}")
    message = f"{doing} failed: {str(error) or type(error).__name__}"
    for kinds, ours in TRANSLATIONS:
        if isinstance(error, kinds):
            return ours(message)
    return BrokerUnavailableError(message) if getattr(error, "retriable", False) else KafkaError(message)


@contextlib.contextmanager
def translating(doing: str, *, needs: str = "Describe", topic: str | None = None) -> Iterator[None]:
    """Raise aiokafka's errors, and time-outs, as ours; ``needs`` and ``topic`` as :func:`translated` takes them."""
    try:
        yield
    except KafkaError:
        raise
    except (theirs.KafkaError, theirs.ConsumerStoppedError, theirs.IllegalOperation, TimeoutError, OSError) as error:
        raise translated(error, doing, needs=needs, topic=topic) from error
    except RuntimeError as error:
        if CLOSED not in str(error):
            raise
        raise BrokerUnavailableError(f"{doing} failed: the connection was closed") from error


CLOSED = "the handler is closed"
"""In uvloop's RuntimeError of a write to a connection that was closed meanwhile; asyncio's own loop drops such a
write.
"""


def _refused(error: Exception, needs: str, topic: str | None) -> str:
    """Which right is missing."""
    of = topic or (error.args[0] if error.args else "")
    # The broker may send a sentence here instead of names.
    names = sorted(of) if isinstance(of, set) else [of] if " " not in of else []
    name = f" {', '.join(names)}" if any(names) else ""
    match error:
        case theirs.GroupAuthorizationFailedError():
            right = f"Read on the group{name}"
        case theirs.ClusterAuthorizationFailedError():
            # headrace asks the cluster itself for one thing only: the id of an idempotent producer.
            right = "Write on any topic"
        case _:
            right = f"{needs} on the topic{name}"
    return f"this user has no right to {right}. `headrace topics acl` prints the rights of each role."


FIRST_S, LONGEST_S = 0.05, 1.0


class Pace:
    """How long to wait before asking for metadata again. The wait doubles with each request in a row that was in
    vain.
    """

    def __init__(self) -> None:
        self.wait_s = 0.0

    def came(self, *, whole: bool) -> None:
        """Metadata came. It is ``whole`` when each topic asked for is there and each of its partitions has a leader."""
        self.wait_s = 0.0 if whole else min(LONGEST_S, max(FIRST_S, 2 * self.wait_s))


def make_lasting(client: AIOKafkaClient) -> None:
    """Make ``client`` outlast brokers that come and go. It has not begun to connect.

    It waits before it asks again for metadata that it has just asked for in vain. And it takes a write to a connection
    that was closed meanwhile for a broken connection, where aiokafka knows no RuntimeError: its fetcher would end, and
    nothing be fetched any more.
    """
    _pace(client)
    connect: Any = client._get_conn  # noqa: SLF001 - aiokafka offers no other way

    async def connect_watched(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        if connection is not None and "send" not in vars(connection):
            connection.send = partial(_send, connection)
        return connection

    client._get_conn = connect_watched  # noqa: SLF001


def _send(connection: Any, request: Any, **options: Any) -> Any:
    try:
        return type(connection).send(connection, request, **options)
    except RuntimeError as error:
        if CLOSED not in str(error):
            raise
        connection.close(reason=their_connections.CloseReason.CONNECTION_BROKEN)
        raise theirs.KafkaConnectionError(f"Connection at {connection.host}:{connection.port} was closed") from error


def _pace(client: AIOKafkaClient) -> None:
    update: Any = client._metadata_update  # noqa: SLF001 - aiokafka offers no other way
    paced = Pace()

    async def update_in_time(cluster: Any, topics: Any) -> bool:
        await asyncio.sleep(paced.wait_s)
        updated = bool(await update(cluster, topics))
        paced.came(whole=updated and all(_led(cluster, topic) for topic in topics or ()))
        return updated

    client._metadata_update = update_in_time  # noqa: SLF001


def _led(cluster: Any, topic: str) -> bool:
    """Whether ``topic`` is there and each of its partitions has a leader."""
    partitions = cluster.partitions_for_topic(topic)
    return bool(partitions) and partitions == cluster.available_partitions_for_topic(topic)


SETTING = "kafka.sasl_oauth_token_provider"


class NoTokenError(ConnectionError):
    """There is no token to connect with. It is an OSError, so that aiokafka treats it as a failed connection."""


class _Answered(their_connections.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    """Reads the broker's answer to a token. By RFC 7628 the answer is empty, or says in JSON why the token is refused.

    aiokafka takes any answer for a yes, and then reads the next response as that of a cluster without brokers.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:
            raise SaslAuthenticationFailed(f"the token is refused: {payload.decode(errors='replace')}")
        step: tuple[bytes, bool] | None = await super().step(payload)
        return step


their_connections.OAuthAuthenticator = _Answered

# aiokafka's own requests would make a topic anew that was deleted a moment before, or one whose name has a slip, where
# brokers make the topics that they are asked for.
their_client.MetadataRequest = partial(MetadataRequest, allow_auto_topic_creation=False)


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Asks ``get`` for a token at each connection, on a thread: it may read a file or go over the network."""

    def __init__(self, get: Callable[[], str]) -> None:
        self._get = get

    async def token(self) -> str:
        """Raises NoTokenError when there is none."""
        return await asyncio.to_thread(self._get)


def file_tokens(path: str) -> Callable[[], str]:
    """Return a function that reads the token in ``path``. It reads the file at each call, because such files are
    renewed.
    """

    def get() -> str:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise NoTokenError(f"kafka.sasl_oauth_token_file {path} can't be read: {error}.") from error
        if not token:
            raise NoTokenError(f"kafka.sasl_oauth_token_file {path} is empty; it has to hold a token.")
        return token

    return get


def provided_tokens(name: str) -> Callable[[], str]:
    """Return a function that calls the one named as ``package.module:function``. Raises UserError when there is
    none.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{SETTING} is {name}, which can't be imported: {error}. Give it as package.module:function."
        ) from error
    if not callable(function):
        raise UserError(f"{SETTING} is {name}, which is no function.")

    def get() -> str:
        try:
            token = function()
        except Exception as error:
            raise NoTokenError(f"{SETTING} {name} gave no token: {error!r}.") from error
        if not isinstance(token, str) or not token:
            raise NoTokenError(f"{SETTING} {name} gave {type(token).__name__} where a token as str is needed.")
        return token

    return get


LOOK_LIMIT_S = 5.0

# OpenSSL's X509_V_ERR_ numbers.
EXPIRED = 10
NOT_YET_VALID = 9
OTHER_NAME = frozenset({62, 64})  # a host's, an IP address's
UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})


def connect_limit_s(settings: KafkaSettings) -> float:
    """Longest time to connect, in seconds: addresses are asked in turn, and one that hangs takes a request's time."""
    return settings.request_timeout_ms / 1000 * len(collect_hosts(settings.bootstrap))


@contextlib.asynccontextmanager
async def connecting(settings: KafkaSettings, doing: str) -> AsyncIterator[None]:
    """Raise what fails inside the block as an error of ours, with the reason where no broker could be reached."""
    try:
        with translating(doing):
            yield
    except BrokerUnavailableError as error:
        bootstrapped = not isinstance(error.__cause__, theirs.KafkaConnectionError)
        reason = None if bootstrapped else await why_unreachable(settings)
        if reason is None:
            raise
        raise type(reason)(f"{doing} failed. {reason}") from error


async def why_unreachable(settings: KafkaSettings) -> KafkaError | None:
    """Connect once to each address of kafka.bootstrap; None when one answers, or none says why not."""
    options = client_options(settings)
    bootstrap, more = options.pop("bootstrap_servers"), ("retry_backoff_ms", "metadata_max_age_ms")
    reason: KafkaError | None = None
    for host, port, _ in collect_hosts(bootstrap, randomize=False):
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                connection = await create_conn(
                    host, port, **{name: value for name, value in options.items() if name not in more}
                )
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (theirs.KafkaError, OSError, TimeoutError) as error:
            found = explained(error, settings, f"{host}:{port}")
            # Of several brokers that are away or refuse us, report one whose error says what to mend.
            if reason is None or (reason.retriable and not found.retriable):
                reason = found
        else:
            return None
    return reason


def explained(error: Exception, settings: KafkaSettings, address: str) -> KafkaError:
    """Return ``error``, raised by a connection to ``address`` of kafka.bootstrap, as one of ours."""
    return (
        _without_trust(error, settings, address)
        or _without_login(error, settings, address)
        or _without_answer(error, settings, address)
        or translated(error, f"Connecting to {address}, which kafka.bootstrap names,")
    )


def _without_trust(error: Exception, settings: KafkaSettings, address: str) -> KafkaError | None:
    match error:
        case ssl.SSLCertVerificationError():
            return NotTrustedError(_untrusted(error, settings, address))
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason and "VERSION" not in reason:
            return NotTrustedError(
                f"The broker at {address} refuses this client's certificate ({reason}): "
                f"kafka.ssl_certfile is {settings.ssl_certfile or 'not set'}."
            )
    return None


def _without_login(error: Exception, settings: KafkaSettings, address: str) -> KafkaError | None:
    match error:
        case NoTokenError():
            return NotAuthorizedError(str(error))
        case theirs.UnsupportedSaslMechanismError() | theirs.IllegalSaslStateError():
            return NotAuthorizedError(
                f"The broker at {address} takes no login by {settings.sasl_mechanism}: {error}. kafka.sasl_mechanism "
                f"or kafka.security_protocol ({settings.security_protocol}) is not what this port is for."
            )
        case theirs.SaslAuthenticationFailed() | theirs.AuthenticationFailedError():
            return NotAuthorizedError(f"The broker at {address} refuses the login: {error}. {_login(settings)}")
    return None


def _without_answer(error: Exception, settings: KafkaSettings, address: str) -> KafkaError | None:
    protocol = settings.security_protocol
    match error:
        case ConnectionRefusedError():
            return BrokerUnavailableError(f"Nothing listens at {address}, which kafka.bootstrap names.")
        case ssl.SSLError() | ConnectionResetError() if protocol.endswith("SSL"):
            return BrokerUnavailableError(
                f"{address} does not speak TLS ({error}). kafka.security_protocol is {protocol}: is the port in "
                "kafka.bootstrap one for TLS?"
            )
        case theirs.KafkaConnectionError() | ConnectionResetError():
            return BrokerUnavailableError(
                f"{address} ended the connection at the first request. kafka.security_protocol is {protocol}: "
                f"{_wanted(settings)}"
            )
        case TimeoutError():
            return BrokerUnavailableError(
                f"{address}, which kafka.bootstrap names, did not answer within {LOOK_LIMIT_S:g} s. Where it runs, "
                f"kafka.security_protocol ({protocol}) may not be what this port is for."
            )
    return None


def _untrusted(error: ssl.SSLCertVerificationError, settings: KafkaSettings, address: str) -> str:
    begin = f"The certificate of the broker at {address}"
    if error.verify_code in OTHER_NAME:
        return (
            f"{begin} is for another name ({error.verify_message}). kafka.bootstrap has to name the broker as its "
            "certificate does, or the broker needs a certificate for that name."
        )
    if error.verify_code in UNKNOWN_AUTHORITY:
        trusted = settings.ssl_cafile or "not set, so the authorities of this machine count"
        return (
            f"{begin} is signed by nobody whom we trust ({error.verify_message}). kafka.ssl_cafile is {trusted}; it "
            "has to hold the certificate of the authority that signed the broker's."
        )
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return f"{begin} is out of date ({error.verify_message}): the broker needs a new one, or a clock is wrong."
    return f"{begin} is not accepted: {error.verify_message}. The authorities are those of kafka.ssl_cafile."


def _login(settings: KafkaSettings) -> str:
    if settings.sasl_mechanism == "OAUTHBEARER":
        source = settings.sasl_oauth_token_file or settings.sasl_oauth_token_provider
        return f"The token came from {source}; is it expired, or for another cluster?"
    return (
        f"Are kafka.sasl_username ({settings.sasl_username}) and kafka.sasl_password right, and does the cluster know "
        f"them by kafka.sasl_mechanism {settings.sasl_mechanism}?"
    )


def _wanted(settings: KafkaSettings) -> str:
    if settings.security_protocol == "SSL":
        return "it may want a certificate (kafka.ssl_certfile, kafka.ssl_keyfile) or a login (SASL_SSL)."
    return "the port in kafka.bootstrap may be one for TLS (SSL, SASL_SSL) or for a login (SASL_PLAINTEXT)."


async def topics_metadata(client: AIOKafkaClient, names: list[str] | None) -> list[dict[str, Any]]:
    """Return the broker's description of the topics named (None: all), those in error included.

    Raises TopicAuthorizationFailedError for topics that the user may not know of.
    """
    response = await send_to_any(client, MetadataRequest(names, allow_auto_topic_creation=False))
    topics: list[dict[str, Any]] = response.to_object()["topics"]
    refused = {topic["topic"] for topic in topics if topic["error_code"] == TopicAuthorizationFailedError.errno}
    if refused:
        raise TopicAuthorizationFailedError(refused)
    return topics


async def partitions_of(client: AIOKafkaClient, topic: str) -> frozenset[int]:
    """Return the partition numbers of ``topic``, empty when there is no such topic."""
    described = [found for found in await topics_metadata(client, [topic]) if found["topic"] == topic]
    return frozenset(partition["partition"] for found in described for partition in found["partitions"])


async def send_to_any(client: AIOKafkaClient, request: Any) -> Any:
    """Send ``request`` to the known brokers, in any order, until one answers.

    Raises BrokerUnavailableError when no broker is known, and the last broker's error when none answers.
    """
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    if not nodes:
        await client.force_metadata_update()
        nodes = [broker.nodeId for broker in client.cluster.brokers()]
    if not nodes:
        raise BrokerUnavailableError(f"No broker is known; is there a Kafka cluster at {client.hosts}?")
    *others, last = random.sample(nodes, len(nodes))
    for node in others:
        with contextlib.suppress(KafkaConnectionError, NodeNotReadyError, RequestTimedOutError):
            return await client.send(node, request)
    return await client.send(last, request)
