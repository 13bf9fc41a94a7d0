"""What a user may call a version."""

import pytest

from headrace.core.clock import SystemClock
from headrace.model.errors import ArtifactError
from headrace.registry.compacted_topics import ModelsLog
from headrace.registry.versions import (
    SeveralVersionsError,
    VersionNotFoundError,
    find_version,
    load_named,
    nothing_named,
)
from headrace_schemas.records import ModelAlias
from tests.support.memory_kafka import MemoryCluster
from tests.support.versions import version_of

FIRST, SECOND, TIMELESS = "20260101T000000Z-aaaa11112222", "20260102T000000Z-aaab33334444", "cccc55556666"


def log() -> ModelsLog:
    known = ModelsLog(MemoryCluster(SystemClock()), "models")
    for version in (FIRST, SECOND, TIMELESS):
        known.versions["m", version] = version_of(version)
    for alias, version in (("champion", FIRST), ("2026", SECOND), ("lost", "gone")):
        known.aliases["m", alias] = ModelAlias(name="m", alias=alias, version=version, moved_at_ms=0)
    return known


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (FIRST, FIRST),
        ("champion", FIRST),
        ("20260101", FIRST),
        ("aaaa", FIRST),
        ("aaab33334444", SECOND),
        ("cc", TIMELESS),
        # An alias comes first, as for a worker.
        ("2026", SECOND),
    ],
)
def test_a_version_is_found_by_alias_name_beginning_or_hash(wanted: str, version: str) -> None:
    assert find_version(log(), "m", wanted).version == version


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("aaa", f"beginning of 2 versions of model 'm': {FIRST}, {SECOND}"),
        ("", "no version or alias ''"),
        ("zzz", "no version or alias 'zzz'"),
        ("lost", "points at gone, of which there is no record"),
    ],
)
def test_what_names_none_or_several_is_refused(wanted: str, said: str) -> None:
    with pytest.raises(VersionNotFoundError, match=said):
        find_version(log(), "m", wanted)


def test_another_models_versions_do_not_count() -> None:
    with pytest.raises(VersionNotFoundError):
        find_version(log(), "other", FIRST)


@pytest.mark.parametrize("wanted", ["champoin", "Champion", "champio", "chmpion"])
def test_a_mistyped_alias_is_answered_with_the_near_one(wanted: str) -> None:
    with pytest.raises(VersionNotFoundError, match="did you mean 'champion'"):
        find_version(log(), "m", wanted)


def test_a_name_that_is_like_none_or_like_one_of_another_model_gets_no_near_ones() -> None:
    assert "mean" not in nothing_named(log(), "m", "zzz")
    assert "mean" not in nothing_named(log(), "other", "champoin")


def test_what_there_is_and_what_to_run_is_said_where_nothing_is_spelled_alike() -> None:
    said = nothing_named(log(), "m", "zzz", followed=True)
    assert f"aliases 2026, champion, lost and versions {TIMELESS}, {SECOND}, {FIRST}" in said
    assert "promote VERSION --alias zzz" in said
    assert "promote" not in nothing_named(log(), "m", "zzz")


def test_another_models_name_is_told_from_an_empty_registry() -> None:
    assert "worker.model_name names the model, and there are m: publish" in nothing_named(log(), "other", "champion")
    empty = ModelsLog(MemoryCluster(SystemClock()), "models")
    assert nothing_named(empty, "m", "beta", followed=True) == (
        "model 'm' has no version yet: publish one with `headrace models publish FILE --alias beta`, "
        "or let a trainer do it"
    )


@pytest.mark.parametrize("named", ["champion", "champion.v2", FIRST])
def test_where_a_file_is_asked_for_an_alias_or_version_is_told_where_its_file_is(named, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=f"^{named}: there is no such artifact here.*`headrace models show NAME`"):
        load_named(named)


def test_a_beginning_of_several_can_not_be_mended_by_waiting() -> None:
    with pytest.raises(SeveralVersionsError, match="Give more of it") as raised:
        find_version(log(), "m", "aaa")
    assert raised.value.exit_code == 2
