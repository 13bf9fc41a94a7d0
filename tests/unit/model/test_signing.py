"""Signatures of versions: what they cover, whom they convince, and the keys behind them."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import headrace_schemas
from headrace.config import load_settings
from headrace.config.loading import SettingsError
from headrace.model.signing import (
    SignatureError,
    SigningKeyError,
    signed_bytes,
    signed_with_path,
    signer,
    verify,
    write_new_key,
)
from headrace.security.keys import SIGNING, key_id, public_key_bytes, public_key_text
from headrace_schemas.codec import decode_models_record
from headrace_schemas.records import ModelVersion
from tests.support.signing import SigningKey, new_key

# RFC 8032, section 7.1, test 1.
RFC_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
EXAMPLES = Path(headrace_schemas.__file__).parent / "examples"
RECORD = ModelVersion(
    name="news",
    version="20260101T000000Z-0123456789ab",
    uri="s3://models/news",
    sha256="0123456789ab" + 52 * "0",
    size=123,
    labels=("business", "sport"),
    created_at_ms=1,
)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "own.pem")


@pytest.fixture
def other(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "other.pem")


def test_the_signed_example_is_signed_for_ever(key: SigningKey) -> None:
    record = decode_models_record((EXAMPLES / "model-version.signed.json").read_bytes())
    assert isinstance(record, ModelVersion)
    verify(record, [public_key_text(SIGNING, RFC_PUBLIC)])
    # Signatures of ed25519 are deterministic, so this is the whole computation again.
    signature = Ed25519PrivateKey.from_private_bytes(RFC_SECRET).sign(signed_bytes(record))
    assert record.signature == base64.b64encode(signature).decode()
    assert record.signed_by == key_id(RFC_PUBLIC)
    with pytest.raises(SignatureError):
        verify(record, [key.public])


def test_what_is_signed_is_written_without_spaces_in_a_fixed_order() -> None:
    record = msgspec.structs.replace(RECORD, name='a"b', labels=("é", "\n"), sha256="ff", version="v")
    assert signed_bytes(record) == '["headrace/version/1","a\\"b","v","ff",123,["é","\\n"]]'.encode()


def test_a_signed_version_is_taken_and_may_be_moved(key: SigningKey) -> None:
    signed = key.sign(RECORD)
    verify(signed, [key.public])
    verify(msgspec.structs.replace(signed, uri="file:///elsewhere"), [key.public])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"version": "20260102T000000Z-0123456789ab"},
        {"sha256": "1" * 64},
        {"size": 124},
        {"size": 10**30},
        {"labels": ("sport", "business")},
        {"labels": ("business", "sport", "extra")},
        {"labels": ('business","sport',)},
        {"signature": "AAAA"},
        {"signature": "not base64!"},
        {"signature": ""},
        {"signature": base64.b64encode(64 * b"\0").decode()},
    ],
)
def test_a_record_that_was_altered_is_refused(change: dict[str, object], key: SigningKey) -> None:
    altered = msgspec.structs.replace(key.sign(RECORD), **change)
    with pytest.raises(SignatureError, match="does not fit its record"):
        verify(altered, [key.public])


PLACED = msgspec.structs.replace(RECORD, uri="s3://models/store/news/versions/a", path="news/versions/a")


def test_the_placed_example_is_signed_for_ever_and_taken_by_workers_of_before() -> None:
    record = decode_models_record((EXAMPLES / "model-version.placed.json").read_bytes())
    assert isinstance(record, ModelVersion)
    trusted = [public_key_text(SIGNING, RFC_PUBLIC)]
    verify(record, trusted)
    signature = Ed25519PrivateKey.from_private_bytes(RFC_SECRET).sign(signed_with_path(record))
    assert record.path_signature == base64.b64encode(signature).decode()
    # They know neither field.
    verify(msgspec.structs.replace(record, path=None, path_signature=None), trusted)


@pytest.mark.parametrize("uri", ["file:///other/store/news/versions/a", "memory://news/versions/a"])
def test_a_store_may_be_moved_as_a_whole(uri: str, key: SigningKey) -> None:
    verify(msgspec.structs.replace(key.sign(PLACED), uri=uri), [key.public])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uri": "s3://models/store/news/versions/b"}, "lies at another path"),
        ({"uri": "s3://models/store/news/trainings/1/job.json"}, "lies at another path"),
        ({"uri": "s3://models/store/xnews/versions/a"}, "lies at another path"),
        ({"uri": "s3://models/store/news/versions/b", "path": "news/versions/b"}, "does not fit its record"),
        ({"path": None}, "does not fit its record"),
        ({"path_signature": None}, "does not fit its record"),
        ({"path": ""}, "does not fit its record"),
    ],
)
def test_a_signed_version_at_another_path_is_refused(change: dict[str, object], said: str, key: SigningKey) -> None:
    with pytest.raises(SignatureError, match=said):
        verify(msgspec.structs.replace(key.sign(PLACED), **change), [key.public])


def test_the_first_signature_does_not_stand_for_the_second(key: SigningKey) -> None:
    signed = key.sign(PLACED)
    with pytest.raises(SignatureError, match="does not fit its record"):
        verify(msgspec.structs.replace(signed, path_signature=signed.signature), [key.public])


def test_a_version_that_nobody_or_somebody_else_signed_is_refused_where_keys_are_trusted(
    key: SigningKey, other: SigningKey
) -> None:
    with pytest.raises(SignatureError, match="is not signed, and signing"):
        verify(RECORD, [key.public])
    with pytest.raises(SignatureError, match="is not signed"):
        verify(msgspec.structs.replace(key.sign(RECORD), signed_by=None), [key.public])
    with pytest.raises(SignatureError, match="which is not trusted here"):
        verify(other.sign(RECORD), [key.public])
    # Whoever says to be another key still has to have it.
    posing = msgspec.structs.replace(other.sign(RECORD), signed_by=key.sign(RECORD).signed_by)
    with pytest.raises(SignatureError, match="does not fit its record"):
        verify(posing, [key.public])


def test_where_no_key_is_trusted_every_version_is_taken(other: SigningKey) -> None:
    verify(RECORD, ())
    verify(other.sign(RECORD), ())


def test_keys_are_rotated_by_trusting_both_for_a_while(key: SigningKey, other: SigningKey) -> None:
    old, new = key.sign(RECORD), other.sign(RECORD)
    for signed in (old, new):
        verify(signed, [key.public, other.public])
    with pytest.raises(SignatureError, match="which is not trusted here"):
        verify(old, [other.public])


def test_a_new_key_is_for_its_owner_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    public = write_new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(public_key_bytes(SIGNING, public)) == 32
    before = path.read_bytes()
    with pytest.raises(SigningKeyError, match="never overwritten"):
        write_new_key(path)
    assert path.read_bytes() == before
    with pytest.raises(SigningKeyError, match="can't be written: No such file or directory"):
        write_new_key(tmp_path / "nowhere" / "key.pem")


def test_who_signs_without_a_key_leaves_versions_as_they_are_unless_that_would_be_refused(key: SigningKey) -> None:
    assert signer(None, ())(RECORD) is RECORD
    with pytest.raises(SigningKeyError, match=r"Set signing\.key_file"):
        signer(None, [key.public])


def test_who_signs_by_a_key_that_is_not_trusted_is_told_so_at_once(key: SigningKey, other: SigningKey) -> None:
    with pytest.raises(SigningKeyError, match=r"which signing\.trusted has not") as raised:
        signer(str(key.file), [other.public])
    assert key.public in str(raised.value)
    verify(signer(str(key.file), [other.public, key.public])(RECORD), [key.public])


def pem(key: Ed25519PrivateKey | X25519PrivateKey, password: bytes | None = None) -> bytes:
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read: No such file"),
        (b"", "is no private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "is no private key in PEM"),
        (pem(Ed25519PrivateKey.generate(), b"secret"), "is no private key in PEM without a password"),
        (pem(X25519PrivateKey.generate()), "an ed25519 key is wanted"),
    ],
)
def test_a_file_that_holds_no_key_to_sign_with_is_refused_and_not_shown(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SigningKeyError, match=said) as raised:
        signer(str(path), ())
    assert "hunter2" not in str(raised.value)


def test_trusted_keys_come_from_the_environment_with_commas(key: SigningKey, other: SigningKey) -> None:
    given = {"HEADRACE_SIGNING__TRUSTED": f"{key.public},{other.public}"}
    assert load_settings(None, given, ()).settings.signing.trusted == (key.public, other.public)


@pytest.mark.parametrize("text", ["x", "ed25519:", "ed25519:AAAA", "ed25519:" + 44 * "!", "rsa:" + 43 * "A" + "="])
def test_what_is_no_public_key_is_refused_by_the_settings(text: str) -> None:
    with pytest.raises(SettingsError, match="is no public key"):
        load_settings(None, {"HEADRACE_SIGNING__TRUSTED": text}, ())
