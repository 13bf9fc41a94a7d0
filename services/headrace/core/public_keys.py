"""Public keys as settings write them, and the short name by which a record points at one."""

from __future__ import annotations

import base64
import hashlib

import msgspec

KEY_BYTES = 32


class Kind(msgspec.Struct, frozen=True):
    """What a key is for: ``scheme`` begins its text, ``made_by`` is the command that prints it."""

    scheme: str
    made_by: str


SIGNING = Kind("ed25519:", "headrace models keygen")
SEALING = Kind("x25519:", "headrace dead-letters keygen")


def public_key_text(kind: Kind, key: bytes) -> str:
    """The key's 32 bytes as a setting has them: the scheme and Base64."""
    return kind.scheme + base64.b64encode(key).decode()


def public_key_bytes(kind: Kind, text: str) -> bytes:
    """The 32 bytes that :func:`public_key_text` wrote. Raises ValueError for any other text."""
    try:
        key = base64.b64decode(text.removeprefix(kind.scheme), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(kind.scheme) or len(key) != KEY_BYTES:
        raise ValueError(
            f"{text[:16]!r} is no public key: expected {kind.scheme} and {KEY_BYTES} bytes in Base64, as "
            f"`{kind.made_by}` prints it"
        )
    return key


def key_id(key: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key).hexdigest()[:16]
