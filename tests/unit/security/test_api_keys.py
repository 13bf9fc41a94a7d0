"""API keys: what a token is, and that only its hash is kept."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.security.api_keys import KeyRole, id_of, make_key, matches


def test_a_token_matches_its_record_alone_and_stands_nowhere_in_it() -> None:
    token, record = make_key([KeyRole.CLIENT, KeyRole.LABELLER], now_ms=1, tenant="shop")
    other, _ = make_key([KeyRole.CLIENT], now_ms=1)
    assert id_of(token) == record.id
    assert matches(token, record)
    assert not matches(other, record)
    assert not matches(token, None)
    assert record.roles == ("client", "labeller")
    # The secret may hold an underscore itself.
    _, _, secret = token.split("_", 2)
    assert secret not in msgspec.json.encode(record).decode()


def test_a_revoked_key_matches_no_more() -> None:
    token, record = make_key([KeyRole.CLIENT], now_ms=1)
    assert not matches(token, msgspec.structs.replace(record, revoked_at_ms=2))


def test_a_token_has_256_random_bits() -> None:
    asked: list[int] = []

    def randomness(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    make_key([KeyRole.CLIENT], now_ms=1, randomness=randomness)
    assert max(asked) == 32


@given(st.text())
def test_whatever_is_no_token_has_no_id_and_matches_nothing(text: str) -> None:
    _, record = make_key([KeyRole.CLIENT], now_ms=1)
    assert id_of(text) is None
    assert not matches(text, record)
