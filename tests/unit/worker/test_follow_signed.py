"""A worker that follows an alias where signatures are asked for: real artifacts, signed by keys made here."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.model.artifact import About, Artifact, assemble, save
from headrace.model.places import places_of
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import version_record
from headrace.worker.stages.infer import Model
from headrace.worker.versions import open_version
from headrace_schemas.records import ModelVersion
from tests.support.networks import random_artifact
from tests.support.places import ANYWHERE
from tests.support.signing import SigningKey, new_key
from tests.support.simulation import SETTINGS, TOPICS
from tests.support.worker_cluster import story

folders = itertools.count()


def version(seed: int) -> Artifact:
    return assemble(random_artifact(seed).network, About(created_at_ms=60_000 * seed))


class Site:
    """A worker's world, a store of versions beside it, and the keys that the worker trusts."""

    def __init__(self, world: Any, trusted: Collection[str]) -> None:
        self.world = world
        self.trusted = trusted
        self.folder = f"memory://signed-{next(folders)}"
        self.places = places_of((self.folder,))
        world.start(answering=self.load)

    async def load(self, record: ModelVersion) -> Model:
        return open_version(record, "cpu", self.trusted, self.places)

    def record(self, artifact: Artifact) -> ModelVersion:
        """The version of ``artifact``, which is in the store, as nobody has signed it."""
        uri = f"{self.folder}/{artifact.version}"
        save(artifact, uri)
        return version_record(
            artifact, name=SETTINGS.model_name, where=ANYWHERE.locate(uri), now_ms=self.world.clock.now_ms()
        )

    async def publish(self, record: ModelVersion, *, previous: str | None = None) -> None:
        await ModelsWriter(self.world.producer, TOPICS.models).publish([record])
        await self.world.point_alias(record.version, previous=previous)

    async def answered_by(self, version: str) -> None:
        while not (answers := self.world.answers()) or answers[-1].version != version:
            await self.world.publish("the good film")
            await self.world.answered(len(answers) + 1)

    async def goes_on_by(self, version: str) -> None:
        """Long after what came last, answers are still of ``version``."""
        await self.world.clock.sleep(100)
        count = len(self.world.answers())
        await self.world.publish("the good film")
        assert (await self.world.answered(count + 1))[-1].version == version


def refusals(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (said.fields["version"], said.fields["why"])
        for said in caplog.records
        if getattr(said, "event", "") == "model.load_failed"
    ]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "own.pem")


@pytest.fixture
def other(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "other.pem")


def test_unsigned_foreign_and_altered_versions_are_refused_and_the_running_one_goes_on(caplog, key, other):
    @story
    async def play(world):
        site = Site(world, [key.public])
        first, second = version(1), version(2)
        await site.publish(key.sign(site.record(first)))
        await site.answered_by(first.version)
        signed = key.sign(site.record(second))
        swapped = msgspec.structs.replace(signed, labels=signed.labels[::-1])
        for record, why in (
            (site.record(second), "is not signed"),
            (other.sign(site.record(second)), "which is not trusted here"),
            (swapped, "does not fit its record"),
            (msgspec.structs.replace(signed, sha256=first.sha256, size=first.size), "does not fit its record"),
        ):
            caplog.clear()
            await site.publish(record, previous=first.version)
            await site.goes_on_by(first.version)
            said = refusals(caplog)
            assert {refused for refused, _ in said} == {second.version}
            assert why in said[-1][1]
        # What is mended is taken up by itself, at the next try.
        await site.publish(signed, previous=first.version)
        await site.answered_by(second.version)

    play()


def test_a_signed_record_of_a_file_that_was_swapped_in_the_store_is_refused(caplog, key):
    @story
    async def play(world):
        site = Site(world, [key.public])
        first, second = version(1), version(2)
        await site.publish(key.sign(site.record(first)))
        await site.answered_by(first.version)
        record = key.sign(site.record(second))
        save(version(3), record.uri)
        await site.publish(record, previous=first.version)
        await site.goes_on_by(first.version)
        assert "its record says" in refusals(caplog)[-1][1]

    play()


def test_a_rollback_to_a_version_that_nobody_signed_is_refused_by_a_worker_that_has_not_loaded_it(caplog, key):
    @story
    async def play(world):
        site = Site(world, [key.public])
        first, second = version(1), version(2)
        await ModelsWriter(world.producer, TOPICS.models).publish([site.record(first)])
        await site.publish(key.sign(site.record(second)), previous=first.version)
        await site.answered_by(second.version)
        # The way back is loaded beside the running version, and refused there already.
        await world.until(lambda: any(getattr(said, "event", "") == "model.not_kept" for said in caplog.records))
        (kept,) = [said.fields["why"] for said in caplog.records if getattr(said, "event", "") == "model.not_kept"]
        assert "is not signed" in kept
        await world.point_alias(first.version, previous=second.version)
        await site.goes_on_by(second.version)
        assert "is not signed" in refusals(caplog)[-1][1]

    play()


def test_while_keys_are_rotated_versions_of_the_old_and_of_the_new_key_answer(key, other):
    @story
    async def play(world):
        site = Site(world, [key.public, other.public])
        first, second = version(1), version(2)
        await site.publish(key.sign(site.record(first)))
        await site.answered_by(first.version)
        await site.publish(other.sign(site.record(second)), previous=first.version)
        await site.answered_by(second.version)
        await world.point_alias(first.version, previous=second.version)
        await site.answered_by(first.version)

    play()


HOSTILE_URIS = (
    "reference://x::data:application/json,",
    "ftp://127.0.0.1:9/x",
    "simplecache::memory://place/x",
    "http://127.0.0.1:9/x",
    "/etc/passwd",
    "{folder}/../elsewhere/{version}",
    "{folder}/%2e%2e/elsewhere/{version}",
    "memory://elsewhere/{version}",
)


@pytest.mark.parametrize("signed", [True, False])
def test_a_version_that_lies_in_no_allowed_place_is_refused_before_anything_is_opened(caplog, key, signed):
    @story
    async def play(world):
        site = Site(world, [key.public] if signed else [])
        first, second = version(1), version(2)
        await site.publish(key.sign(site.record(first)))
        await site.answered_by(first.version)
        # The first signature alone does not cover the URI, so this record is signed by a trusted key.
        placed = key.sign(site.record(second))
        record = msgspec.structs.replace(placed, path=None, path_signature=None)
        save(second, f"memory://elsewhere/{second.version}")
        for uri in HOSTILE_URIS:
            caplog.clear()
            there = uri.format(folder=site.folder, version=second.version)
            await site.publish(msgspec.structs.replace(record, uri=there), previous=first.version)
            await site.goes_on_by(first.version)
            assert "is refused" in refusals(caplog)[-1][1]
            assert "(store-refused)" in refusals(caplog)[-1][1]
        await site.publish(record, previous=first.version)
        await site.answered_by(second.version)

    play()


def test_a_version_whose_path_is_signed_is_refused_at_any_other(caplog, key):
    @story
    async def play(world):
        site = Site(world, [key.public])
        first, second = version(1), version(2)
        await site.publish(key.sign(site.record(first)))
        await site.answered_by(first.version)
        record = key.sign(site.record(second))
        save(second, f"{site.folder}/elsewhere")
        await site.publish(msgspec.structs.replace(record, uri=f"{site.folder}/elsewhere"), previous=first.version)
        await site.goes_on_by(first.version)
        assert "lies at another path" in refusals(caplog)[-1][1]
        await site.publish(record, previous=first.version)
        await site.answered_by(second.version)

    play()
