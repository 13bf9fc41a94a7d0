"""Keys that tests sign versions with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from headrace.model.signing import Sign, signer, write_new_key


class SigningKey(NamedTuple):
    """A private key's file, its public key as a setting has it, and what signs by it."""

    file: Path
    public: str
    sign: Sign


def new_key(path: Path) -> SigningKey:
    """A fresh key in a file of that path."""
    public = write_new_key(path)
    return SigningKey(path, public, signer(str(path), ()))
