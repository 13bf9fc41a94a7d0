"""Gateways that the tests of a file share. One takes over a second to start and end: the group's join does.

``gateway`` asks for no key, ``keyed`` does. Each has default settings and topics of its own (``.site``), where a test
finds what those before it published. A test that needs other settings, empty topics or an end starts a gateway of its
own on ``site``. All tests of a file run on one event loop, that of its gateways.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gateways import GatewaySite, RunningGateway, gateway_site

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(loop_scope="module")
async def site(embedded_bootstrap: str) -> AsyncIterator[GatewaySite]:
    """Topics of the test's own, and nothing in them."""
    async with gateway_site(embedded_bootstrap) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(embedded_bootstrap: str) -> AsyncIterator[RunningGateway]:
    async with gateway_site(embedded_bootstrap) as site, site.gateway() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_keyed(embedded_bootstrap: str) -> AsyncIterator[RunningGateway]:
    async with gateway_site(embedded_bootstrap) as site, site.gateway(keys=True) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> Iterator[RunningGateway]:
    """The gateway of the file that asks for no key."""
    yield shared_gateway
    shared_gateway.site.answer_again()


@pytest.fixture
def keyed(shared_keyed: RunningGateway) -> Iterator[RunningGateway]:
    """The gateway of the file that asks for keys."""
    yield shared_keyed
    shared_keyed.site.answer_again()
