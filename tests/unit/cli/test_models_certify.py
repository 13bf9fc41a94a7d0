"""`headrace models certify`: a threshold with a bound on the models topic, or words that say why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.commands.models.certify import NotCertifiedError
from headrace.learning.evaluate import answer_scored
from headrace.model.backends.interface import open_backend
from tests.support.models_site import Site
from tests.support.signing import new_key


def rows_file(site: Site, artifact, count: int, wrong: int) -> Path:
    """A file of ``count`` rows, of which the first ``wrong`` have another label than the version gives."""
    words = ("good", "bad", "film", "the", "a", "plot", "dull", "great")
    texts = [f"{words[place % 8]} {words[place // 8 % 8]} number {place}" for place in range(count)]
    given = answer_scored(open_backend("cpu", artifact), texts).labels
    other = {label: next(one for one in artifact.labels if one != label) for label in artifact.labels}
    path = site.folder / "rows.jsonl"
    rows = [
        {"text": text, "label": other[label] if place < wrong else label}
        for place, (text, label) in enumerate(zip(texts, given, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_certificate_is_published_signed_and_one_tried_dry_is_not(site: Site, monkeypatch) -> None:
    key = new_key(site.folder / "own.pem")
    monkeypatch.setenv("HEADRACE_SIGNING__KEY_FILE", str(key.file))
    artifact = site.artifact(1)
    site.run("publish", site.folder / artifact.version)
    rows = rows_file(site, artifact, 800, wrong=0)
    said = site.run("certify", "champion", "--disagree", "0.02", "--rows", rows, "--dry-run")
    assert f"would certify {artifact.version}" in said
    assert not site.log().certificates
    said = site.run("certify", "champion", "--disagree", "0.02", "--rows", rows)
    (certificate,) = site.log().certificates.values()
    assert certificate.version == artifact.version
    assert (certificate.errors, certificate.disagree) == (0, 0.02)
    assert certificate.signature is not None
    assert f"certified {artifact.version}" in said
    assert f"0 of {certificate.accepted} rows were" in said


@pytest.mark.parametrize(("count", "wrong", "why"), [(100, 0, "rows are too few"), (800, 800, "are answered wrong")])
def test_what_can_t_be_certified_is_said_and_nothing_is_published(
    count: int, wrong: int, why: str, site: Site, monkeypatch, capsys
) -> None:
    artifact = site.artifact(1)
    site.run("publish", site.folder / artifact.version)
    rows = rows_file(site, artifact, count, wrong)
    with pytest.raises(NotCertifiedError, match=why):
        site.run("certify", "champion", "--disagree", "0.02", "--rows", rows)
    assert not site.log().certificates


def test_a_version_of_a_file_needs_rows_that_it_never_saw(site: Site) -> None:
    artifact = site.artifact(1)
    site.run("publish", site.folder / artifact.version)
    with pytest.raises(NotCertifiedError, match="--rows FILE"):
        site.run("certify", "champion", "--disagree", "0.02")
