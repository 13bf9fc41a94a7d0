"""One guarded broker for all tests of the way to Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from headrace.kafka.brokers import BrokerStartError, apache_broker, java_binary
from tests.conftest import held
from tests.contract.security.guarded import Guarded, make_certificates, passwords, plan, server_settings


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker that lets nobody in without a login or a certificate. Skips where there is no Java 17."""
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    planned = plan(tmp_path_factory.mktemp("guarded"))
    make_certificates(planned.folder)
    broker = apache_broker(of_node=lambda _, own: server_settings(planned, own), scram=passwords())
    with held(broker) as brokers:
        yield msgspec.structs.replace(planned, plain=brokers.bootstrap)
