from __future__ import annotations

import pytest

from headrace.core.secret import Secret
from headrace.kafka.settings import KafkaSettings, client_options


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bootstrap": " "}, "bootstrap"),
        ({"heartbeat_interval_ms": 3000}, "heartbeat_interval_ms"),
        ({"rebalance_timeout_ms": 30_000}, "request_timeout_ms"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "me"}, "sasl_password"),
        ({"ssl_certfile": "cert.pem"}, "ssl_keyfile"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named):
        KafkaSettings(**values)


def test_a_certificate_file_that_is_missing_is_named(tmp_path):
    missing = tmp_path / "authority.pem"
    with pytest.raises(ValueError, match=r"ssl_cafile is .*authority\.pem"):
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
