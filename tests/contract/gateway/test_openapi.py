"""The OpenAPI document: current, valid for its validators, and what schemathesis tries against a live gateway."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import jsonschema
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headrace.gateway import openapi
from headrace.gateway.endpoints import ENDPOINTS
from tests.support.gateways import gateway_site

STREAMS = {"/v1/answers"}


def test_the_document_is_what_would_be_written(tmp_path: Path) -> None:
    assert openapi.main(["--check"], io.StringIO()) == 0
    said, file = io.StringIO(), tmp_path / "openapi.json"
    assert openapi.main(["--check"], said, file) == 1
    assert "out of date" in said.getvalue()
    assert openapi.main([], said, file) == 0
    assert file.read_bytes() == openapi.FILE.read_bytes()


def test_every_endpoint_is_documented_and_every_schema_is_one() -> None:
    document = openapi.document(ENDPOINTS)
    assert {(method.upper(), path) for path, of in document["paths"].items() for method in of} == {
        (one.method, one.path) for one in ENDPOINTS
    }
    names = [operation["operationId"] for of in document["paths"].values() for operation in of.values()]
    assert len(names) == len(set(names))
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.fixture(scope="module")
def address(embedded_bootstrap: str) -> Iterator[str]:
    """A gateway on a loop of its own, because schemathesis calls it from this thread."""
    ready: list[str] = []
    started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        async with gateway_site(embedded_bootstrap, partitions=1) as site, site.gateway() as gateway:
            await site.add_version("v1")
            ready.append(gateway.address)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(120)
    try:
        yield ready[0]
    finally:
        stop.set()
        thread.join()


CASES = [(one.method, one.path) for one in ENDPOINTS if one.path not in STREAMS]


@pytest.mark.parametrize(("method", "path"), CASES)
def test_schemathesis_finds_no_failure(address: str, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_dict(httpx.get(f"{address}/openapi.json").json())
    operation = schema[path][method]

    @hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=operation.as_strategy())
    def call(case: schemathesis.Case) -> None:
        response = case.call(base_url=address, timeout=300)  # the first label compiles a kernel
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    call()
