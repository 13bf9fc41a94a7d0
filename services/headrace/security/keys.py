"""Keys, and sealing bytes to a public key.

A private key lies in a file: PEM (PKCS 8) without a password, for its owner alone, never overwritten. Settings write a
public key as text, and records name it by its id.

Sealing: a worker that writes sealed dead letters can't read them again; only the owner of the private key can.

The construction is that of ECIES and of HPKE's base mode (RFC 9180): an X25519 key pair made for it, HKDF-SHA256 over
the shared secret, and ChaCha20-Poly1305. A sealed value is

    version   1 byte, 1
    ephemeral 32 bytes, the X25519 public key made for at most VALUES_A_KEY values
    number    4 bytes, big-endian: which of these values it is
    box       ciphertext and tag of 16 bytes

The key of the box is HKDF-SHA256 (no salt) over the shared secret with ``headrace sealed 1``, the ephemeral and the
recipient's public key as its info; the nonce is the number, behind eight zero bytes. What a value belongs to is its
associated data: a sealed value that was moved to another place does not open.

One ephemeral key serves many values, because making a key pair takes a third of a millisecond, and in a flood of
rubbish every record becomes a dead letter. The ephemeral private key is forgotten at once, and the key of the box after
its last value.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable
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
    """The key's 32 bytes as text for a setting: the scheme and Base64."""
    return kind.scheme + base64.b64encode(key).decode()


def public_key_bytes(kind: Kind, text: str) -> bytes:
    """The 32 bytes of a text of :func:`public_key_text`. Raises ValueError for any other text."""
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
        # In one step, so that no existing key is overwritten, and other users can never read this one.
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            with file:
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        except BaseException:
            # Half a key is useless, and would block the next try.
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


VERSION = b"\x01"
NUMBER_BYTES = 4
TAG_BYTES = 16
OVERHEAD = 1 + KEY_BYTES + NUMBER_BYTES + TAG_BYTES
"""How many bytes sealing adds."""
VALUES_A_KEY = 1000

_INFO = b"headrace sealed 1"
_NONCE_BYTES = 12

Seal = Callable[[bytes, bytes], bytes]
"""(bytes, associated data) to the sealed value."""


class SealError(UserError):
    """A key can't be used, or a sealed value does not open; the message says which, and what to do."""


class PrivateKey(msgspec.Struct, frozen=True):
    """An X25519 private key, raw, from the file ``source``."""

    raw: bytes
    source: str

    def __repr__(self) -> str:
        return f"PrivateKey({self.source})"

    def public(self) -> bytes:
        """The public key that belongs to it, ``bytes[32]``."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

        return X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw()


def sealer(public: bytes, draw: Callable[[int], bytes] = os.urandom) -> Seal:
    """Return a function that seals to ``public``, for any thread. ``draw`` returns so many random bytes."""
    return _Sealer(public, draw).seal


class _Sealer:
    def __init__(self, public: bytes, draw: Callable[[int], bytes]) -> None:
        self._public = public
        self._draw = draw
        self._lock = threading.Lock()
        self._sent, self._encrypt = self._renewed()
        self._number = 0

    def seal(self, value: bytes, associated: bytes) -> bytes:
        with self._lock:
            if self._number == VALUES_A_KEY:
                self._sent, self._encrypt = self._renewed()
                self._number = 0
            sent, encrypt, number = self._sent, self._encrypt, self._number.to_bytes(NUMBER_BYTES)
            self._number += 1
        return VERSION + sent + number + encrypt(_nonce(number), value, VERSION + associated)

    def _renewed(self) -> tuple[bytes, Callable[[bytes, bytes, bytes], bytes]]:
        """A new ephemeral public key, and what encrypts with the key of its boxes."""
        # Loaded only where something is sealed: other workers start without it.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415

        own = X25519PrivateKey.from_private_bytes(self._draw(KEY_BYTES))
        sent = own.public_key().public_bytes_raw()
        shared = own.exchange(X25519PublicKey.from_public_bytes(self._public))
        return sent, ChaCha20Poly1305(_box_key(shared, sent, self._public)).encrypt


def unseal(sealed: bytes, key: PrivateKey, associated: bytes) -> bytes:
    """Open a value that was sealed to the public key of ``key``. Raises SealError when it was not, or was changed or
    moved.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415

    if len(sealed) < OVERHEAD or sealed[:1] != VERSION:
        raise SealError("is no sealed value that this version of headrace knows.")
    own, box_at = X25519PrivateKey.from_private_bytes(key.raw), OVERHEAD - TAG_BYTES
    sent, number = sealed[1 : 1 + KEY_BYTES], sealed[1 + KEY_BYTES : box_at]
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(sent))
        box = ChaCha20Poly1305(_box_key(shared, sent, own.public_key().public_bytes_raw()))
        return box.decrypt(_nonce(number), sealed[box_at:], VERSION + associated)
    # A ValueError means a point of small order, which no honest sender makes.
    except (InvalidTag, ValueError) as error:
        raise SealError(f"does not open by {key.source}: it was changed, or moved from another place.") from error


def make_key(path: Path) -> bytes:
    """Write a new private key to ``path`` (PEM, PKCS 8, for its owner alone) and return the public key, ``bytes[32]``.

    Raises SealError. An existing file is never overwritten, because it may be the only key to sealed values.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    key = X25519PrivateKey.generate()
    write_private_key(path, key, refused=SealError)
    return key.public_key().public_bytes_raw()


def read_key(path: Path) -> PrivateKey:
    """Read a private key as :func:`make_key` writes it. Raises SealError, which never shows what the file holds."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    key: X25519PrivateKey = read_private_key(path, X25519PrivateKey, SEALING, named="The key file", refused=SealError)
    return PrivateKey(key.private_bytes_raw(), str(path))


def _box_key(shared: bytes, sent: bytes, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), KEY_BYTES, salt=None, info=_INFO + sent + public).derive(shared)


def _nonce(number: bytes) -> bytes:
    return number.rjust(_NONCE_BYTES, b"\0")
