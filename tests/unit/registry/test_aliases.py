"""Where an alias may go, and what it remembers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import SystemClock
from headrace.registry.aliases import (
    AliasError,
    NoPreviousVersionError,
    NoSuchVersionError,
    PinnedAliasError,
    move,
    roll_back,
    set_pin,
)
from headrace.registry.compacted_topics import ModelsLog
from headrace_schemas.records import ModelAlias
from tests.support.memory_kafka import MemoryCluster
from tests.support.versions import version_of

NAMES = ("v1", "v2", "v3")


def log_of(*versions: str, pointer: ModelAlias | None = None) -> ModelsLog:
    log = ModelsLog(MemoryCluster(SystemClock()), "models")
    for version in versions:
        log.versions["m", version] = version_of(version)
    if pointer is not None:
        log.aliases["m", pointer.alias] = pointer
    return log


def champion(version: str, **fields: object) -> ModelAlias:
    return ModelAlias(name="m", alias="champion", version=version, moved_at_ms=1, **fields)


def test_the_first_move_of_an_alias_has_nothing_to_go_back_to() -> None:
    assert move(log_of("v1"), "m", "champion", "v1", reason="better", now_ms=5) == ModelAlias(
        name="m", alias="champion", version="v1", moved_at_ms=5, reason="better"
    )


def test_a_move_remembers_where_the_alias_pointed() -> None:
    moved = move(log_of(*NAMES, pointer=champion("v1")), "m", "champion", "v2", reason="better", now_ms=5)
    assert (moved.version, moved.previous, moved.reason, moved.moved_at_ms) == ("v2", "v1", "better", 5)


def test_a_move_to_the_same_version_keeps_the_way_back() -> None:
    log = log_of(*NAMES, pointer=champion("v2", previous="v1"))
    assert move(log, "m", "champion", "v2", reason="again", now_ms=5).previous == "v1"


def test_an_alias_never_points_at_a_version_that_the_log_does_not_hold() -> None:
    with pytest.raises(NoSuchVersionError, match="no version 'v9'"):
        move(log_of("v1"), "m", "champion", "v9", reason="", now_ms=0)
    with pytest.raises(NoSuchVersionError):
        move(log_of("v1"), "other", "champion", "v1", reason="", now_ms=0)


def test_a_pinned_alias_is_moved_by_hand_only_and_stays_pinned() -> None:
    log = log_of(*NAMES, pointer=champion("v1", pinned=True))
    with pytest.raises(PinnedAliasError, match="pinned to v1"):
        move(log, "m", "champion", "v2", reason="trainer", now_ms=5)
    moved = move(log, "m", "champion", "v2", reason="by hand", now_ms=5, by_hand=True)
    assert (moved.version, moved.previous, moved.pinned) == ("v2", "v1", True)


def test_a_pin_leaves_the_alias_where_it_is() -> None:
    log = log_of(*NAMES, pointer=champion("v2", previous="v1"))
    pinned = set_pin(log, "m", "champion", pinned=True, reason="audit", now_ms=5)
    assert (pinned.version, pinned.previous, pinned.pinned) == ("v2", "v1", True)
    log.aliases["m", "champion"] = pinned
    assert set_pin(log, "m", "champion", pinned=False, reason="", now_ms=6).pinned is False


def test_rolling_back_needs_somewhere_to_go() -> None:
    with pytest.raises(AliasError, match="no alias 'champion'"):
        roll_back(log_of("v1"), "m", "champion", reason="", now_ms=0)
    with pytest.raises(NoPreviousVersionError, match="nothing before v1"):
        roll_back(log_of("v1", pointer=champion("v1")), "m", "champion", reason="", now_ms=0)
    with pytest.raises(NoPreviousVersionError, match="v0 before, whose record is gone"):
        roll_back(log_of("v1", pointer=champion("v1", previous="v0")), "m", "champion", reason="", now_ms=0)


@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=8), st.booleans())
def test_rolling_back_twice_goes_where_it_was(moves: list[str], pinned: bool) -> None:
    log = log_of(*NAMES)
    for number, version in enumerate(moves):
        log.aliases["m", "champion"] = move(log, "m", "champion", version, reason="", now_ms=number)
    before = log.aliases["m", "champion"]
    if pinned:
        before = log.aliases["m", "champion"] = set_pin(log, "m", "champion", pinned=True, reason="", now_ms=20)
    if before.previous is None:
        assert len(set(moves)) == 1
        return
    log.aliases["m", "champion"] = back = roll_back(log, "m", "champion", reason="", now_ms=30)
    assert (back.version, back.previous) == (before.previous, before.version)
    again = roll_back(log, "m", "champion", reason="", now_ms=40)
    assert (again.version, again.previous) == (before.version, before.previous)


def test_who_moved_an_alias_is_on_its_record_and_not_on_the_next_one() -> None:
    log = log_of("v1", "v2", pointer=champion("v1"))
    moved = move(log, "m", "champion", "v2", reason="better", now_ms=5, by_hand=True, by="ana")
    log.aliases["m", "champion"] = moved
    assert moved.by == "ana"
    assert roll_back(log, "m", "champion", reason="worse", now_ms=6, by="ben").by == "ben"
    assert set_pin(log, "m", "champion", pinned=True, reason="hold", now_ms=6, by="ben").by == "ben"
    assert move(log, "m", "champion", "v1", reason="of the gate", now_ms=6).by is None
