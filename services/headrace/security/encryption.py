"""Sealing bytes to a public key: who writes dead letters can't read them again, only who has the private key can.

The construction is that of ECIES and of HPKE's base mode (RFC 9180): an X25519 key pair made for it, HKDF-SHA256 over
the shared secret, and ChaCha20-Poly1305. A sealed value is

    version   1 byte, 1
    ephemeral 32 bytes, the X25519 public key made for at most VALUES_A_KEY values
    number    4 bytes, big-endian: which of these values it is
    box       ciphertext and tag of 16 bytes

The key of the box is HKDF-SHA256 (no salt) over the shared secret with ``headrace sealed 1``, the ephemeral and the
recipient's public key as its info; the nonce is the number, behind eight zero bytes. What a value belongs to is its
associated data: a sealed value that was moved to another place does not open.

A key pair of its own for each value would take a third of a millisecond, and a flood of rubbish makes a dead letter of
every record. The ephemeral private key is forgotten at once, and the key of the box with its last value.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core.errors import UserError
from headrace.security.keys import KEY_BYTES, SEALING, read_private_key, write_private_key

VERSION = b"\x01"
NUMBER_BYTES = 4
TAG_BYTES = 16
OVERHEAD = 1 + KEY_BYTES + NUMBER_BYTES + TAG_BYTES
"""How many bytes a sealed value is longer."""
VALUES_A_KEY = 1000

_INFO = b"headrace sealed 1"
_NONCE_BYTES = 12

Seal = Callable[[bytes, bytes], bytes]
"""(bytes, associated data) to the sealed value."""


class SealError(UserError):
    """A key that can't be used, or a sealed value that does not open; the message says which and what to do."""


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
    """What seals to ``public``, from any thread. ``draw`` gives so many bytes, never the same twice."""
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
    """Open what was sealed to the public key of ``key``. Raises SealError when it is not, or was changed or moved."""
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
    # A ValueError is a point of small order, which no honest sender makes.
    except (InvalidTag, ValueError) as error:
        raise SealError(f"does not open by {key.source}: it was changed, or moved from another place.") from error


def make_key(path: Path) -> bytes:
    """Write a new private key to ``path`` (PEM, PKCS 8, for its owner alone) and return the public key, ``bytes[32]``.

    Raises SealError; a file that is there is left alone, since it may be the only key of what was sealed.
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
