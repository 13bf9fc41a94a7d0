"""TLS and logins against Apache Kafka: each way in, and each mistake with the words that say what to mend."""

from __future__ import annotations

import msgspec
import pytest

from headrace.core.fields import Secret
from headrace.kafka.acls import Right
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import (
    BrokerUnavailableError,
    KafkaError,
    NotAuthorizedError,
    NotTrustedError,
    Outgoing,
    TopicPartition,
    TopicSpec,
)
from tests.contract.security.guarded import allow, unsecured_token
from tests.support.waiting import within

pytestmark = pytest.mark.apache

LIMIT_S = 15.0


def token() -> str:
    """What a provider of tokens looks like; named in the settings as module:function."""
    return unsecured_token("provided")


def counted_token() -> str:
    tokens.append(token())
    return tokens[-1]


tokens: list[str] = []


def no_token() -> str:
    raise RuntimeError("the identity provider is away")


WAYS = {
    "a password by SCRAM": lambda guarded: guarded.scram("producer"),
    "a password by PLAIN": lambda guarded: guarded.by_password("PLAIN", "plain", "plain-secret"),
    "a token in a file": lambda guarded: guarded.token("filed"),
    "a token from a function": lambda guarded: msgspec.structs.replace(
        guarded.token("filed"), sasl_oauth_token_file=None, sasl_oauth_token_provider=f"{__name__}:token"
    ),
    "a certificate with an encrypted key": lambda guarded: guarded.certificate(),
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_in_leads_to_the_broker(guarded, way):
    admin = AioKafkaCluster(WAYS[way](guarded)).admin()
    await admin.start()
    try:
        assert await admin.broker_count() == 1
    finally:
        await admin.stop()


async def test_a_certificate_names_a_user_who_has_rights_of_its_own(guarded):
    name = "of-the-machine"
    await allow(guarded, {"machine": [Right("topic", name, ("Create", "Write"))]})
    cluster = AioKafkaCluster(guarded.certificate())
    admin, producer = cluster.admin(), cluster.producer()
    await admin.start()
    await producer.start()
    try:
        await admin.create_topic(TopicSpec(name=name, partitions=1))
        assert (await producer.send_batch(name, 0, [Outgoing(b"1")])).offset == 0
        with pytest.raises(NotAuthorizedError, match="no right to Create on the topic of-others"):
            await admin.create_topic(TopicSpec(name="of-others", partitions=1))
    finally:
        await producer.stop()
        await admin.stop()


def changed(settings, **values):
    return msgspec.structs.replace(settings, **values)


# What is wrong; the error; what its message has to name: the address or setting, and the mistake.
MISTAKES = {
    "a wrong password": (
        lambda g: g.scram("worker", "wrong"),
        NotAuthorizedError,
        r"refuses the login.*kafka\.sasl_username \(worker\) and kafka\.sasl_password",
    ),
    "a wrong password by PLAIN": (
        lambda g: g.by_password("PLAIN", "plain", "wrong"),
        NotAuthorizedError,
        r"refuses the login.*kafka\.sasl_username \(plain\) and kafka\.sasl_password",
    ),
    "a user that is not known": (
        lambda g: g.by_password("SCRAM-SHA-512", "nobody", "x"),
        NotAuthorizedError,
        r"refuses the login.*kafka\.sasl_username \(nobody\)",
    ),
    "a mechanism that is not offered": (
        lambda g: g.by_password("SCRAM-SHA-256", "worker", "x"),
        NotAuthorizedError,
        r"takes no login by SCRAM-SHA-256.*kafka\.sasl_mechanism",
    ),
    "a token that is none": (
        lambda g: _with_token(g, "rubbish"),
        NotAuthorizedError,
        r"refuses the login.*invalid_token.*rubbish\.token",
    ),
    "a token file that is not there": (
        lambda g: changed(g.token("gone"), sasl_oauth_token_file=str(g.folder / "no-such.token")),
        NotAuthorizedError,
        r"kafka\.sasl_oauth_token_file .*no-such\.token can't be read",
    ),
    "a function that gives no token": (
        lambda g: changed(
            g.token("gone"), sasl_oauth_token_file=None, sasl_oauth_token_provider=f"{__name__}:no_token"
        ),
        NotAuthorizedError,
        r"kafka\.sasl_oauth_token_provider .*no_token gave no token.*the identity provider is away",
    ),
    "an authority that we don't know": (
        lambda g: changed(g.scram("worker"), ssl_cafile=str(g.folder / "stranger.pem")),
        NotTrustedError,
        r"signed by nobody whom we trust.*kafka\.ssl_cafile is .*stranger\.pem",
    ),
    "no authority at all": (
        lambda g: changed(g.scram("worker"), ssl_cafile=None),
        NotTrustedError,
        r"signed by nobody whom we trust.*kafka\.ssl_cafile is not set",
    ),
    "a certificate for another name": (
        lambda g: changed(g.scram("worker"), bootstrap=g.login.replace("localhost", "127.0.0.1")),
        NotTrustedError,
        r"is for another name.*kafka\.bootstrap",
    ),
    "a certificate out of date": (
        lambda g: changed(g.certificate(), bootstrap=g.outdated),
        NotTrustedError,
        r"certificate of the broker at localhost:\d+ is out of date.*certificate has expired",
    ),
    "TLS at a plain port": (
        lambda g: changed(g.certificate(), bootstrap=g.plain),
        BrokerUnavailableError,
        r"127\.0\.0\.1:\d+ does not speak TLS.*kafka\.security_protocol is SSL.*kafka\.bootstrap",
    ),
    "a login over TLS at a plain port": (
        lambda g: changed(g.scram("worker"), bootstrap=g.plain),
        BrokerUnavailableError,
        r"127\.0\.0\.1:\d+ does not speak TLS.*kafka\.security_protocol is SASL_SSL.*kafka\.bootstrap",
    ),
    "no TLS at a port for it": (
        lambda g: changed(g.certificate(), security_protocol="PLAINTEXT"),
        BrokerUnavailableError,
        r"ended the connection.*kafka\.security_protocol is PLAINTEXT.*kafka\.bootstrap",
    ),
    "a login without TLS at a port for it": (
        lambda g: changed(g.scram("worker"), security_protocol="SASL_PLAINTEXT"),
        BrokerUnavailableError,
        r"ended the connection.*kafka\.security_protocol is SASL_PLAINTEXT.*kafka\.bootstrap",
    ),
    "a login at a plain port": (
        lambda g: changed(g.scram("worker"), security_protocol="SASL_PLAINTEXT", bootstrap=g.plain),
        NotAuthorizedError,
        r"takes no login by SCRAM-SHA-512.*kafka\.security_protocol \(SASL_PLAINTEXT\)",
    ),
    "no login at a port for it": (
        lambda g: changed(g.scram("worker"), security_protocol="SSL"),
        BrokerUnavailableError,
        r"ended the connection.*kafka\.security_protocol is SSL: it may want .*a login \(SASL_SSL\)",
    ),
    "no certificate where one is wanted": (
        lambda g: changed(g.certificate(), ssl_certfile=None, ssl_keyfile=None),
        BrokerUnavailableError,
        r"ended the connection.*kafka\.security_protocol is SSL: it may want a certificate \(kafka\.ssl_certfile",
    ),
}


def _with_token(guarded, text):
    settings = guarded.token("rubbish")
    (guarded.folder / "rubbish.token").write_text(text)
    return settings


# Whatever starts finds out in the same way, so that one mistake is enough for the others.
@pytest.mark.parametrize(
    ("mistake", "kind"),
    [*((mistake, "admin") for mistake in MISTAKES), ("a wrong password", "consumer"), ("a wrong password", "producer")],
)
async def test_a_mistake_is_one_clear_error_in_bounded_time(guarded, mistake, kind):
    make, expected, message = MISTAKES[mistake]
    client = getattr(AioKafkaCluster(make(guarded)), kind)()
    with pytest.raises(KafkaError, match=f"(?s){message}") as caught:
        async with within(LIMIT_S, "an error"):
            await client.start()
    assert type(caught.value) is expected


async def test_no_error_tells_the_password(guarded):
    settings = changed(guarded.scram("worker"), sasl_password=Secret("hush-hush"))
    with pytest.raises(NotAuthorizedError) as caught:
        await AioKafkaCluster(settings).admin().start()
    error: BaseException | None = caught.value
    while error is not None:
        assert "hush" not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.slow
async def test_a_login_that_ends_is_made_again_with_a_fresh_token_and_nothing_is_lost(guarded):
    """aiokafka never logs in again on a connection, so the broker cuts those whose login is over."""
    name = "brief-logins"
    await allow(guarded, {"provided": [Right("topic", name, ("Create", "Read", "Write"))]})
    settings = changed(
        guarded.token("unused"),
        bootstrap=guarded.brief,
        sasl_oauth_token_file=None,
        sasl_oauth_token_provider=f"{__name__}:counted_token",
    )
    cluster = AioKafkaCluster(settings)
    admin, producer, consumer = cluster.admin(), cluster.producer(), cluster.consumer()
    await admin.start()
    await admin.create_topic(TopicSpec(name=name, partitions=1))
    await admin.stop()
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(name, 0)])
    consumer.seek(TopicPartition(name, 0), 0)
    at_first, sent, read = len(tokens), [], []
    async with within(LIMIT_S, "the renewal of four tokens"):
        while len(tokens) < at_first + 4 or len(read) < len(sent):
            if len(tokens) < at_first + 4:
                sent.append(str(len(sent)).encode())
                await producer.send_batch(name, 0, [Outgoing(sent[-1])])
            for records in (await consumer.fetch(max_records=100, timeout_s=0.05)).values():
                read += [record.value for record in records]
    await producer.stop()
    await consumer.stop()
    assert read == sent
