"""Public keys as settings write them, and the short name by which a record points at one.

Files of private keys: PEM (PKCS 8) without a password, for their owner alone, never overwritten.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.core.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

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


def write_private_key(path: Path, key: Ed25519PrivateKey | X25519PrivateKey, *, refused: type[UserError]) -> None:
    """Write ``key`` to a new file. Raises ``refused`` when there is a file already, or it can't be written."""
    # Imported where it is needed: a client's install is without it.
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    try:
        # In one step: neither is a key of others overwritten, nor this one ever readable by them.
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            with file:
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        except BaseException:
            # A part of a key is none, and would be in the way of the next.
            path.unlink()
            raise
    except FileExistsError as error:
        raise refused(f"{path} is there already, and a key is never overwritten. Name a new file.") from error
    except OSError as error:
        raise refused(f"{path} can't be written: {error.strerror or error}.") from error


def read_private_key(path: Path, wanted: type[Any], kind: Kind, *, named: str, refused: type[UserError]) -> Any:
    """Read a key of the class ``wanted``, one of cryptography's.

    Raises ``refused``, whose message begins with ``named`` and shows nothing of what the file holds.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise refused(f"{named} {path} can't be read: {error.strerror or error}.") from error
    # Without its cause, which could hold what is in the file.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise refused(
            f"{named} {path} is no private key in PEM without a password; `{kind.made_by} --out FILE` makes one."
        ) from None
    if not isinstance(key, wanted):
        algorithm = kind.scheme.removesuffix(":")
        raise refused(
            f"{named} {path} holds a key of another kind; an {algorithm} key is wanted. `{kind.made_by} --out FILE` "
            "makes one."
        )
    return key
