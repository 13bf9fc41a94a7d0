"""A version that is published again: what stays of the first record, and which records count for nothing."""

from __future__ import annotations

import msgspec
import pytest

from headrace.registry.versions import PublishedElsewhereError, published_again
from headrace.security.keys import SIGNING, public_key_text
from headrace_schemas.records import ModelVersion

NEW = ModelVersion(
    name="default", version="a", uri="file:///new", sha256="1", size=1, labels=("x",), created_at_ms=20, path="new"
)
OLD = msgspec.structs.replace(NEW, uri="file:///old", created_at_ms=10, path="old")


@pytest.mark.parametrize(("known", "move", "time"), [(None, False, 20), (OLD, True, 10)])
def test_the_first_time_is_kept_and_the_place_is_moved_on_demand(
    known: ModelVersion | None, move: bool, time: int
) -> None:
    again = published_again(known, NEW, trusted=(), move=move)
    assert (again.uri, again.created_at_ms) == (NEW.uri, time)


def test_a_new_signature_at_the_same_place_needs_no_word() -> None:
    signed = msgspec.structs.replace(OLD, signature="s", signed_by="k", created_at_ms=30)
    assert published_again(OLD, signed, trusted=(), move=False) == msgspec.structs.replace(signed, created_at_ms=10)


@pytest.mark.parametrize("changed", [{"uri": "file:///old"}, {"sha256": "2"}])
def test_another_place_and_another_file_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(PublishedElsewhereError):
        published_again(msgspec.structs.replace(NEW, **changed), NEW, trusted=(), move=False)


def test_a_record_that_nobody_trusted_signed_holds_nothing_up() -> None:
    trusted = (public_key_text(SIGNING, bytes(32)),)
    assert published_again(OLD, NEW, trusted=trusted, move=False) == NEW
