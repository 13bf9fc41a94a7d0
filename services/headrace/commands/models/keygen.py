"""`headrace models keygen`: a key to sign versions with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.common import say


def keygen(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the private key goes; it is never overwritten.")],
) -> None:
    """Make an ed25519 key: FILE, readable by its owner alone, is for signing.key_file of whoever publishes versions.

    What is printed is its public key, for signing.trusted of workers and trainers.
    """
    from headrace.model.signing import write_new_key

    say(write_new_key(out))
