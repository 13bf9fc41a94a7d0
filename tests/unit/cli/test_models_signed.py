"""The models commands where versions are signed: keygen, publish, promote, rollback and show, on the twin."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.model.errors import ArtifactError
from headrace.model.signing import SignatureError, SigningKeyError, verify
from headrace.registry.aliases import move
from tests.support.models_site import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def champion(site: Site) -> str:
    return site.log().aliases["default", "champion"].version


def test_a_version_is_signed_when_it_is_published_and_only_signed_ones_are_moved_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, second = (site.artifact(minute).version for minute in (1, 2))
    site.run("publish", old)
    public = site.run("keygen", "--out", "key.pem").strip()
    monkeypatch.setenv("HEADRACE_SIGNING__TRUSTED", public)
    with pytest.raises(SigningKeyError, match=r"Set signing\.key_file"):
        site.run("publish", second)
    assert ("default", second) not in site.log().versions
    monkeypatch.setenv("HEADRACE_SIGNING__KEY_FILE", "key.pem")
    site.run("publish", second)
    record = site.log().versions["default", second]
    verify(record, [public])
    assert f"signed by {record.signed_by}" in " ".join(site.run("show", second).split())
    for command in (("promote", old), ("promote", old, "--no-check"), ("rollback",), ("rollback", "--no-check")):
        with pytest.raises(SignatureError, match=f"Version {old} of model 'default' is not signed"):
            site.run(*command)
    # To pin moves nothing, so it asks for nothing.
    site.run("pin")
    assert champion(site) == second
    # Published again, an old version has a signature, and can be gone back to.
    site.run("publish", old, "--alias", "old")
    assert f"champion -> {old}" in site.run("rollback")


def test_a_version_whose_file_or_record_was_altered_is_not_moved_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = site.run("keygen", "--out", "key.pem").strip()
    monkeypatch.setenv("HEADRACE_SIGNING__TRUSTED", public)
    monkeypatch.setenv("HEADRACE_SIGNING__KEY_FILE", "key.pem")
    first, second = (site.artifact(minute).version for minute in (1, 2))
    site.run("publish", first)
    site.run("publish", second)
    (site.folder / first).write_bytes((site.folder / second).read_bytes())
    with pytest.raises(ArtifactError, match="its record says"):
        site.run("rollback")
    record = site.log().versions["default", second]
    site.publish(msgspec.structs.replace(record, labels=record.labels[::-1]))
    with pytest.raises(SignatureError, match="does not fit its record"):
        site.run("promote", second)
    forged = move(site.log(), "default", "champion", first, reason="forged", now_ms=1, by_hand=True)
    site.publish(forged)
    assert champion(site) == first, "aliases are not signed: that is for the rights on the topic"


def test_a_key_is_made_once(site: Site) -> None:
    site.run("keygen", "--out", "key.pem")
    with pytest.raises(SigningKeyError, match=r"key\.pem is there already"):
        site.run("keygen", "--out", "key.pem")


@pytest.mark.parametrize("moment_ms", [2**62, -(2**62), 10**30])
def test_a_version_whose_record_has_no_possible_time_is_shown_all_the_same(site: Site, moment_ms: int) -> None:
    version = site.artifact(1).version
    site.run("publish", version)
    site.publish(msgspec.structs.replace(site.log().versions["default", version], created_at_ms=moment_ms))
    assert f"{moment_ms} ms, which is no date" in " ".join(site.run("show", version).split())
    assert version in site.run("list")
