from __future__ import annotations

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from headrace.core.errors import UserError
from headrace.core.fields import Secret
from headrace.kafka.settings import KafkaSettings, client_options


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bootstrap": " "}, "bootstrap"),
        ({"heartbeat_interval_ms": 3000}, "heartbeat_interval_ms"),
        ({"rebalance_timeout_ms": 30_000}, "request_timeout_ms"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "me"}, "sasl_password"),
        ({"ssl_certfile": "cert.pem"}, "ssl_keyfile"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "sasl_oauth_token_file"),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_file": "token",
                "sasl_oauth_token_provider": "mine:token",
            },
            "not both",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named):
        KafkaSettings(**values)


def test_a_certificate_file_that_is_missing_is_named(tmp_path):
    missing = tmp_path / "authority.pem"
    with pytest.raises(UserError, match=r"kafka\.ssl_cafile is .*authority\.pem"):
        client_options(KafkaSettings(security_protocol="SSL", ssl_cafile=str(missing)))


def test_tls_is_on_exactly_where_the_protocol_says_so():
    user = {"sasl_username": "me", "sasl_password": Secret("s")}
    assert client_options(KafkaSettings())["ssl_context"] is None
    assert client_options(KafkaSettings(security_protocol="SASL_PLAINTEXT", **user))["ssl_context"] is None
    options = client_options(KafkaSettings(security_protocol="SASL_SSL", **user))
    assert options["ssl_context"] is not None
    assert options["sasl_plain_password"] == user["sasl_password"].reveal()


def test_a_password_does_not_show_in_the_settings():
    settings = KafkaSettings(security_protocol="SASL_SSL", sasl_username="me", sasl_password=Secret("hush"))
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:token", "No module named"),
        ("headrace.kafka.settings:no_such_function", "no_such_function"),
        ("headrace.kafka.aio.connection:LOOK_LIMIT_S", "is no function"),
        ("token", "package.module:function"),
    ],
)
def test_a_provider_of_tokens_that_is_none_is_named_when_the_client_is_made(name, why):
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_provider=name
    )
    with pytest.raises(UserError, match=rf"(?s)kafka\.sasl_oauth_token_provider is {name}.*{why}"):
        client_options(settings)


async def test_a_token_file_is_read_again_at_each_connection(tmp_path):
    file = tmp_path / "token"
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file=str(file)
    )
    tokens = client_options(settings)["sasl_oauth_token_provider"]
    for text in ("first", "renewed"):
        file.write_text(f"{text}\n")
        assert await tokens.token() == text
    file.write_text("\n")
    with pytest.raises(ConnectionError, match="is empty"):
        await tokens.token()


def test_a_certificate_authority_that_is_no_certificate_is_named(tmp_path):
    file = tmp_path / "authority.pem"
    file.write_text("rubbish")
    with pytest.raises(UserError, match=r"kafka\.ssl_cafile .*authority\.pem holds no certificates"):
        client_options(KafkaSettings(security_protocol="SSL", ssl_cafile=str(file)))


def test_a_key_whose_password_is_missing_is_refused_and_not_asked_for(tmp_path):
    certificate = trustme.CA().issue_cert("localhost")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"of-the-key"))
    (tmp_path / "key.pem").write_bytes(sealed)
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    with pytest.raises(UserError, match=r"kafka\.ssl_key_password"):
        client_options(KafkaSettings(security_protocol="SSL", **files))
    right = KafkaSettings(security_protocol="SSL", ssl_key_password=Secret("of-the-key"), **files)
    assert client_options(right)["ssl_context"] is not None
