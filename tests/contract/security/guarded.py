"""Apache Kafka with TLS, logins of every kind and ACLs, and who may reach it: all made here, for one run of tests."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import Request
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from headrace.core.fields import Secret
from headrace.kafka.acls import Right
from headrace.kafka.settings import KafkaSettings, client_options
from headrace.process.ports import free_ports

HOST = "localhost"
"""The one name in the certificates: by 127.0.0.1 the broker is reached as somebody else."""

BRIEF_MS = 1500
"""How long a login lasts at the listener for that."""

LOGIN = "org.apache.kafka.common.security"
TOPIC, GROUP, LITERAL, ALLOW = 2, 3, 3, 3
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Alter": 7, "DescribeConfigs": 10}


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """The listeners of the broker, and the files that its clients need. Addresses are host:port."""

    plain: str
    login: str
    mutual: str
    outdated: str
    brief: str
    folder: Path

    @property
    def authority(self) -> str:
        return str(self.folder / "authority.pem")

    def scram(self, user: str, password: str | None = None) -> KafkaSettings:
        """Log in as one of the users of :func:`passwords`."""
        return self.by_password("SCRAM-SHA-512", user, passwords()[user] if password is None else password)

    def by_password(self, mechanism: str, user: str, password: str) -> KafkaSettings:
        return KafkaSettings(
            bootstrap=self.login,
            security_protocol="SASL_SSL",
            ssl_cafile=self.authority,
            sasl_mechanism=mechanism,
            sasl_username=user,
            sasl_password=Secret(password),
        )

    def token(self, user: str) -> KafkaSettings:
        """Log in by a token that names ``user``, kept in a file. This broker believes every token."""
        file = self.folder / f"{user}.token"
        file.write_text(unsecured_token(user))
        return KafkaSettings(
            bootstrap=self.login,
            security_protocol="SASL_SSL",
            ssl_cafile=self.authority,
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_file=str(file),
        )

    def certificate(self) -> KafkaSettings:
        """Come with a certificate for the user machine, whose key is encrypted."""
        return KafkaSettings(
            bootstrap=self.mutual,
            security_protocol="SSL",
            ssl_cafile=self.authority,
            ssl_certfile=str(self.folder / "machine.pem"),
            ssl_keyfile=str(self.folder / "machine.key"),
            ssl_key_password=Secret(KEY_PASSWORD),
        )


KEY_PASSWORD = "of-the-key"  # noqa: S105 - of a key that lives as long as the tests
ROLES = ("producer", "worker", "trainer", "reader", "labeller", "operator")


def passwords() -> dict[str, str]:
    """The users that the broker knows by SCRAM, each named as the role that it has, and their passwords."""
    return {role: f"{role}-secret" for role in ROLES}


def unsecured_token(user: str) -> str:
    """A JSON web token that nobody signed, which is all that the broker's validator for tests asks for."""
    now = int(dt.datetime.now(dt.UTC).timestamp())
    parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + 3600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def make_certificates(folder: Path) -> None:
    """Write an authority, the broker's key with a valid and with an expired certificate, and a client's."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    _write_for_broker(authority.issue_cert(HOST), folder / "broker.pem")
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    _write_for_broker(
        authority.issue_cert(HOST, not_before=past - dt.timedelta(days=1), not_after=past), folder / "outdated.pem"
    )
    machine = authority.issue_cert("machine.test", common_name="machine")
    (folder / "machine.pem").write_bytes(machine.cert_chain_pems[0].bytes())
    key = load_pem_private_key(machine.private_key_pem.bytes(), None)
    (folder / "machine.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(KEY_PASSWORD.encode()))
    )


def _write_for_broker(certificate: trustme.LeafCert, file: Path) -> None:
    """Kafka reads key and certificates from one file, and the key as PKCS#8 only."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + b"".join(part.bytes() for part in certificate.cert_chain_pems))


def plan(folder: Path) -> Guarded:
    """Choose ports."""
    login, mutual, outdated, brief = (f"{HOST}:{port}" for port in free_ports(4))
    return Guarded(plain="", login=login, mutual=mutual, outdated=outdated, brief=brief, folder=folder)


def server_settings(guarded: Guarded, own: Mapping[str, str]) -> dict[str, str]:
    """Return what turns a node with the settings ``own`` into the guarded one.

    Its plain listener stays, for the node itself and for the administrator, who may do everything.
    """
    listeners = {
        "LOGIN": guarded.login,
        "MUTUAL": guarded.mutual,
        "OUTDATED": guarded.outdated,
        "BRIEF": guarded.brief,
    }
    protocols = {"LOGIN": "SASL_SSL", "MUTUAL": "SSL", "OUTDATED": "SSL", "BRIEF": "SASL_SSL"}

    def joined(first: str) -> str:
        return ",".join([own[first], *(f"{name}://{address}" for name, address in listeners.items())])

    return {
        "listeners": joined("listeners"),
        "advertised.listeners": joined("advertised.listeners"),
        "listener.security.protocol.map": ",".join(
            [own["listener.security.protocol.map"], *(f"{name}:{kind}" for name, kind in protocols.items())]
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": guarded.authority,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(guarded.folder / "broker.pem"),
        "listener.name.outdated.ssl.keystore.type": "PEM",
        "listener.name.outdated.ssl.keystore.location": str(guarded.folder / "outdated.pem"),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/",
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.login.plain.sasl.jaas.config": (
            f'{LOGIN}.plain.PlainLoginModule required user_plain="plain-secret";'
        ),
        "listener.name.login.scram-sha-512.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
        "listener.name.brief.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.brief.connections.max.reauth.ms": str(BRIEF_MS),
        **_oauthbearer("login"),
        **_oauthbearer("brief"),
    }


def _oauthbearer(listener: str) -> dict[str, str]:
    here = f"listener.name.{listener}.oauthbearer.sasl"
    handlers = f"{LOGIN}.oauthbearer.internals.unsecured"
    return {
        f"{here}.jaas.config": (
            f'{LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
        f"{here}.server.callback.handler.class": f"{handlers}.OAuthBearerUnsecuredValidatorCallbackHandler",
        f"{here}.login.callback.handler.class": f"{handlers}.OAuthBearerUnsecuredLoginCallbackHandler",
    }


class _CreateAcls(Request[CreateAclsRequest_v1]):
    """Many at once; aiokafka's own request takes one."""

    API_KEY = 30

    def __init__(self, creations: Sequence[tuple[object, ...]]) -> None:
        self._creations = creations

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class(list(self._creations))


async def allow(guarded: Guarded, granted: Mapping[str, Sequence[Right]]) -> None:
    """Give each user of ``granted`` its rights."""
    kinds = {"topic": TOPIC, "group": GROUP}
    creations = [
        (kinds[right.resource], right.name, LITERAL, f"User:{user}", "*", OPERATIONS[operation], ALLOW)
        for user, rights in granted.items()
        for right in rights
        for operation in right.operations
    ]
    admin = AIOKafkaAdminClient(**client_options(KafkaSettings(bootstrap=guarded.plain)))
    await admin.start()
    try:
        response = await admin._send_to_controller(_CreateAcls(creations))
    finally:
        await admin.close()
    refused = [message for code, message in response.creation_responses if code]
    assert not refused, refused
