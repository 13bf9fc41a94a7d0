import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.security.keys import (
    OVERHEAD,
    SEALING,
    VALUES_A_KEY,
    PrivateKey,
    SealError,
    key_id,
    make_key,
    public_key_bytes,
    public_key_text,
    read_key,
    sealer,
    unseal,
)

KEY = PrivateKey(bytes(range(32)), "test.pem")
SEALED = sealer(KEY.public())
GOLDEN = [
    (
        "0113be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d00000000"
        "51dd893409637386d4d5f81e6530a0dbf3217672145b"
    ),
    (
        "0113be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d00000001"
        "d4a32f24ca14b4353c38b7408f3282883c9b2f8ca105"
    ),
]


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_sealed_opens_with_the_private_key_and_is_longer_by_a_known_number(value: bytes, place: bytes) -> None:
    sealed = SEALED(value, place)
    assert unseal(sealed, KEY, place) == value
    assert len(sealed) == len(value) + OVERHEAD
    if len(value) > 8:
        assert value not in sealed


def test_the_format_of_version_1_never_changes() -> None:
    seal = sealer(KEY.public(), lambda size: bytes([7]) * size)
    assert [seal(b"a text", b"t[0]@1").hex() for _ in range(2)] == GOLDEN
    assert [unseal(bytes.fromhex(one), KEY, b"t[0]@1") for one in GOLDEN] == [b"a text"] * 2


@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    sealed = bytearray(SEALED(b"a text", b"t[0]@1"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    # The highest bit of an X25519 public key is not read by its curve, but is part of what the key is derived from.
    with pytest.raises(SealError):
        unseal(bytes(sealed), KEY, b"t[0]@1")


@given(st.binary(max_size=120))
def test_bytes_that_nobody_sealed_are_refused(value: bytes) -> None:
    with pytest.raises(SealError):
        unseal(value, KEY, b"")
    with pytest.raises(SealError):
        unseal(b"\x01" + bytes(36) + value, KEY, b"")


def test_a_sealed_value_opens_nowhere_else_and_by_no_other_key() -> None:
    sealed = SEALED(b"a text", b"t[0]@1")
    with pytest.raises(SealError, match="moved from another place"):
        unseal(sealed, KEY, b"t[0]@2")
    with pytest.raises(SealError, match=r"does not open by other\.pem"):
        unseal(sealed, PrivateKey(bytes(32), "other.pem"), b"t[0]@1")


def test_an_ephemeral_key_serves_so_many_values_and_no_two_of_them_have_one_nonce() -> None:
    seal = sealer(KEY.public())
    begins = [seal(b"", b"")[:37] for _ in range(2 * VALUES_A_KEY + 1)]
    assert len({one[:33] for one in begins}) == 3
    assert len(set(begins)) == len(begins)


def test_a_key_file_is_its_owners_alone_holds_the_key_and_is_never_overwritten(tmp_path: Path) -> None:
    path, umask = tmp_path / "key.pem", os.umask(0)
    try:
        public = make_key(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = read_key(path)
    assert key.public() == public
    assert key.raw.hex() not in repr(key) + str(key)
    before = path.read_bytes()
    with pytest.raises(SealError, match="is there already"):
        make_key(path)
    assert path.read_bytes() == before


def test_a_file_that_holds_no_such_key_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(SealError, match="can't be read"):
        read_key(path)
    path.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SealError, match="no private key") as refused:
        read_key(path)
    assert "hunter2" not in repr(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "AAAA", "no base64", "ed25519:" + "A" * 43 + "=", "A" * 44 + "=", "ä"])
def test_a_public_key_is_32_bytes_in_base64(text: str) -> None:
    for one in (text, "x25519:" + text):
        with pytest.raises(ValueError, match="expected x25519: and 32 bytes in Base64"):
            public_key_bytes(SEALING, one)
    assert public_key_bytes(SEALING, public_key_text(SEALING, KEY.public())) == KEY.public()
    assert len(key_id(KEY.public())) == 16
