"""Public keys of ed25519 as settings write them, and the short name by which a signed record points at one."""

from __future__ import annotations

import base64
import hashlib

SCHEME = "ed25519:"
KEY_BYTES = 32


def public_key_text(key: bytes) -> str:
    """The key's 32 bytes as a setting has them: ``ed25519:`` and base64."""
    return SCHEME + base64.b64encode(key).decode()


def public_key_bytes(text: str) -> bytes:
    """The 32 bytes that :func:`public_key_text` wrote. Raises ValueError for any other text."""
    try:
        key = base64.b64decode(text.removeprefix(SCHEME), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(SCHEME) or len(key) != KEY_BYTES:
        raise ValueError(
            f"{text[:16]!r} is no public key: expected {SCHEME} and {KEY_BYTES} bytes in base64, as `headrace models "
            "keygen` prints it"
        )
    return key


def key_id(key: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key).hexdigest()[:16]
