"""The models commands on a broker: versions are published, moved, compared and pruned as a user does it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing
from headrace.kafka.settings import KafkaSettings
from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from headrace.registry.compacted_topics import ModelsWriter
from headrace_schemas.codec import encode_request, encode_result
from headrace_schemas.records import ClassifyRequest, ClassifyResult, ModelsRecord, ResultsClaim, Status
from tests.support.networks import random_network

NETWORK = quantize(random_network(1))


class Site:
    """Topics of a prefix of their own on the embedded broker, and the command line on them."""

    def __init__(self, bootstrap: str, store: Path) -> None:
        self.prefix = f"models-{uuid.uuid4().hex[:8]}."
        self.cluster = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap, idempotent=False))
        self._options = [
            f"--bootstrap={bootstrap}",
            f"--set=topics.prefix={self.prefix}",
            "--set=kafka.idempotent=false",
            f"--set=trainer.store={store}",
        ]
        self.run("topics", "apply")
        self.run("topics", "apply", "--results", f"{self.prefix}shadow")

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(cli.app, [*self._options, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    def write(self, records: dict[str, Sequence[Outgoing]], models: Sequence[ModelsRecord]) -> None:
        async def write() -> None:
            producer = self.cluster.producer()
            await producer.start()
            for topic, values in records.items():
                await producer.send_batch(self.prefix + topic, 0, values)
            await ModelsWriter(producer, f"{self.prefix}classify.models").publish(models)
            await producer.stop()

        asyncio.run(write())


@pytest.fixture
def site(embedded_bootstrap: str, tmp_path: Path) -> Site:
    return Site(embedded_bootstrap, tmp_path)


def answers(version: str, *labels: str) -> list[Outgoing]:
    results = (
        ClassifyResult(offset=at, after=at - 1, crc=0, status=Status.OK, version=version, label=label)
        for at, label in enumerate(labels)
    )
    return [Outgoing(encode_result(result)) for result in results]


def test_versions_are_published_moved_compared_and_pruned(site: Site, tmp_path: Path) -> None:
    versions = []
    for minute in (1, 2, 3):
        artifact = assemble(NETWORK, About(created_at_ms=60_000 * minute))
        save(artifact, str(tmp_path / artifact.version))
        site.run("models", "publish", str(tmp_path / artifact.version))
        versions.append(artifact.version)
    first, second, third = versions
    assert f"champion -> {second}, before {third}" in site.run("models", "rollback")
    assert f"champion -> {third}, before {second}" in site.run("models", "rollback")
    assert f"challenger -> {second}" in site.run("models", "promote", second, "--alias", "challenger")
    assert f"champion left for {third}" in site.run("models", "show", "challenger")

    requests = [Outgoing(encode_request(ClassifyRequest(text=f"text {at}"))) for at in range(3)]
    claims = [
        ResultsClaim(
            results=site.prefix + results, requests=f"{site.prefix}classify.requests", group=results, claimed_at_ms=0
        )
        for results in ("classify.results", "shadow")
    ]
    site.write(
        {
            "classify.requests": requests,
            # A zombie's repeat stands behind newer answers.
            "classify.results": [*answers(third, "a", "a", "b"), *answers(third, "a", "a")],
            "shadow": answers(second, "a", "b", "b"),
        },
        claims,
    )
    compared = site.run("models", "compare", "champion", "challenger", "--texts")
    assert "3 requests were answered by both, 66.67% of them alike." in compared
    assert "0@1 a b text 1" in compared

    assert f"removed {first}" in site.run("models", "prune", "--keep", "1")
    assert not (tmp_path / first).exists()
    listed = site.run("models", "list")
    assert first not in listed
    assert f"{second} challenger" in listed
    assert f"{third} champion" in listed
