"""What a user may call a version."""

import pytest

from headrace.core.clock import SystemClock
from headrace.kafka.memory import MemoryCluster
from headrace.registry.finding import VersionNotFoundError, find_version, near_names
from headrace.registry.models_log import ModelsLog
from headrace_schemas.records import ModelAlias
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
        ("lost", "points at gone, whose record is gone"),
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
    with pytest.raises(VersionNotFoundError, match="Did you mean 'champion'"):
        find_version(log(), "m", wanted)


def test_a_name_that_is_like_none_or_like_one_of_another_model_gets_no_near_ones() -> None:
    assert near_names(log(), "m", "zzz") == []
    assert near_names(log(), "other", "champoin") == []
