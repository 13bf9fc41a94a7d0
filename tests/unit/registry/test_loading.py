"""From a version's record to its artifact."""

from __future__ import annotations

import msgspec
import pytest

from headrace.model.errors import ArtifactError
from headrace.registry.versions import load_version
from headrace_schemas.records import Lineage
from tests.support.models_site import Site
from tests.support.places import ANYWHERE


def test_a_record_whose_lineage_is_not_the_artifacts_is_refused(tmp_path, monkeypatch) -> None:
    """The gate goes by the lineage: which rows a version was trained on, and which it may be compared on."""
    site = Site(tmp_path, monkeypatch)
    artifact = site.artifact(1)
    site.run("publish", artifact.version)
    record = site.log().versions["default", artifact.version]
    assert load_version(record, (), ANYWHERE).sha256 == record.sha256
    forged = msgspec.structs.replace(record, lineage=Lineage(source="labels", digest="0" * 64, rows=1, split="mine"))
    with pytest.raises(ArtifactError, match="another lineage"):
        load_version(forged, (), ANYWHERE)
