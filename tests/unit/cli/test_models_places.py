"""The models commands against records that name files of somebody else: none is opened, moved to or removed."""

from __future__ import annotations

from pathlib import Path

import fsspec
import msgspec
import pytest

from headrace.model.artifact import save
from headrace.model.errors import StoreError
from headrace_schemas.records import ModelVersion
from tests.support.models_site import Site

HOSTILE = (
    "reference://x::data:application/json,{}",
    "ftp://127.0.0.1:9/x",
    "simplecache::file:///etc/passwd",
    "/etc/passwd",
    "memory://elsewhere/x",
    "s3://bucket/x?versionId=1",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A store in a folder of its own."""
    (tmp_path / "store").mkdir()
    return Site(tmp_path / "store", monkeypatch)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file that belongs to nobody here."""
    file = tmp_path / "foreign"
    file.write_bytes(b"foreign")
    return file


def published(site: Site, minute: int) -> ModelVersion:
    artifact = site.artifact(minute)
    site.run("publish", artifact.version)
    return site.log().versions["default", artifact.version]


def test_an_alias_is_moved_to_no_version_outside_of_the_allowed_places(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = published(site, 1), published(site, 2)
    opened: list[str] = []
    monkeypatch.setattr(fsspec, "filesystem", opened.append)
    for uri in HOSTILE:
        site.publish(msgspec.structs.replace(first, uri=uri))
        for command in (("promote", first.version), ("rollback",)):
            with pytest.raises(StoreError, match="is refused"):
                site.run(*command)
        # These open nothing at all.
        site.run("show", first.version)
        site.run("list")
        site.run("diff", first.version, second.version)
        site.run("prune", "--keep", "1", "--dry-run")
    assert site.log().aliases["default", "champion"].version == second.version
    assert opened == []


def test_an_artifact_from_elsewhere_is_copied_into_the_store(site: Site, tmp_path: Path) -> None:
    artifact = site.artifact(1)
    elsewhere = tmp_path / "made" / "model.safetensors"
    save(artifact, str(elsewhere))
    (site.folder / artifact.version).unlink()
    site.run("publish", str(elsewhere))
    record = site.log().versions["default", artifact.version]
    kept = site.folder / "default" / "versions" / f"{artifact.version}.safetensors"
    assert record.uri == f"file://{kept}"
    assert kept.read_bytes() == elsewhere.read_bytes()
    elsewhere.unlink()
    site.run("promote", artifact.version)


def test_a_store_that_is_not_allowed_takes_no_copy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(site.artifact(1), str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HEADRACE_STORE__ALLOWED", str(tmp_path / "other"))
    with pytest.raises(StoreError, match=r"is refused: .*store\.allowed"):
        site.run("publish", str(tmp_path / "elsewhere"))
    assert not site.log().versions


def forged(like: ModelVersion, uri: str, **fields: object) -> ModelVersion:
    """An old version that nothing points at, whose file ``uri`` is."""
    return msgspec.structs.replace(like, version="forged", uri=uri, created_at_ms=0, **fields)


def test_pruning_removes_no_file_outside_of_the_allowed_places(site: Site, foreign: Path) -> None:
    good = published(site, 1)
    for uri in (str(foreign), f"file://{foreign}", f"{site.folder}/../{foreign.name}"):
        site.publish(forged(good, uri, sha256="0" * 64, size=7))
        shown = site.run("prune", "--keep", "1")
        assert "removed the record of forged alone, its file stays: " in shown
        assert "store.allowed" in shown or "has an empty name" in shown
        assert ("default", "forged") not in site.log().versions
    assert foreign.read_bytes() == b"foreign"


def test_pruning_follows_no_link_out_of_the_store(site: Site, foreign: Path) -> None:
    good = published(site, 1)
    (site.folder / "link").symlink_to(foreign)
    site.publish(forged(good, str(site.folder / "link"), sha256="0" * 64, size=7))
    assert "a symbolic link leads out" in site.run("prune", "--keep", "1")
    assert foreign.exists()


def test_pruning_removes_no_file_in_the_store_that_the_record_is_not_of(site: Site) -> None:
    good = published(site, 1)
    job = site.folder / "default" / "trainings" / "1" / "job.json"
    job.parent.mkdir(parents=True)
    job.write_bytes(b"{}")
    site.publish(forged(good, str(job), sha256="0" * 64, size=2))
    assert "its file stays" in site.run("prune", "--keep", "1")
    assert job.exists()
    # And none that another record is of too, whatever the URI is spelled like.
    site.publish(forged(good, good.uri.removeprefix("file://")))
    site.run("prune", "--keep", "1")
    assert (site.folder / good.version).exists()
    assert set(site.log().versions) == {("default", good.version)}


def test_pruning_removes_a_file_only_for_a_record_that_is_signed_where_keys_are_trusted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = site.run("keygen", "--out", "../key.pem").strip()
    monkeypatch.setenv("HEADRACE_SIGNING__TRUSTED", public)
    monkeypatch.setenv("HEADRACE_SIGNING__KEY_FILE", "../key.pem")
    old, unsigned, _ = published(site, 1), published(site, 2), published(site, 3)
    site.run("promote", "champion")
    published(site, 4)
    site.publish(msgspec.structs.replace(unsigned, signature=None, signed_by=None))
    shown = site.run("prune", "--keep", "1")
    assert f"removed {old.version}, " in shown
    assert f"removed the record of {unsigned.version} alone, its file stays: " in shown
    assert "is not signed" in shown
    assert not (site.folder / old.version).exists()
    assert (site.folder / unsigned.version).exists()
