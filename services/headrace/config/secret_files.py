"""Secrets of settings: kept out of sight from the moment they are read, taken from files, refused as arguments.

``section.field_file`` names the file that holds the secret ``section.field``, as HEADRACE_KAFKA__SASL_PASSWORD_FILE
does. Container platforms mount secrets as files, and a file is in no list of processes and no dump of an environment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.config.sources import PREFIX, Given
from headrace.core.fields import Secret

SUFFIX = "_file"
MOST_BYTES = 64 * 1024


class SecretFileError(Exception):
    """A secret that can't be had from where the settings say. The message never has what a file holds."""


def name_secrets(source: Iterable[Given], secrets: Collection[str]) -> Iterator[Given]:
    """What one ``source`` gives, with ``section.field_file`` given as a file of the secret ``section.field``.

    Raises SecretFileError when the source gives a secret both ways: which one counts would be a guess.
    """
    ways: dict[str, bool] = {}
    for one in source:
        key = one.key.removesuffix(SUFFIX)
        in_file = key != one.key and key in secrets
        if not in_file and one.key not in secrets:
            yield one
            continue
        if ways.setdefault(key, in_file) is not in_file:
            raise SecretFileError(
                f"{key} ({one.origin}): is given as itself and as {key}{SUFFIX}. Keep one of the two."
            )
        value = Secret(one.value) if isinstance(one.value, str) and not in_file else one.value
        yield msgspec.structs.replace(one, key=key, value=value, in_file=in_file)


def refuse_argument(key: str) -> str:
    """Say why the secret ``key`` can't be an argument of a command, and what can be done instead."""
    variable = PREFIX + key.replace(".", "__").upper()
    return (
        f"{key} (--set): is a secret, and every user of this machine can read the arguments of a process. "
        f"Set the environment variable {variable}, or name a file that holds it by {variable}{SUFFIX.upper()}."
    )


def read_secret(given: Given) -> Secret:
    """Read the secret whose file ``given`` names, without one newline at its end. Raises SecretFileError."""
    named = f"{given.key}{SUFFIX} ({given.origin})"
    if not isinstance(given.value, str) or not given.value:
        raise SecretFileError(f"{named}: expected the path of a file.")
    try:
        with Path(given.value).open("rb") as file:
            held = file.read(MOST_BYTES + 1)
    # A path with a NUL is a ValueError.
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no path of a file"
        raise SecretFileError(f"{named}: {given.value!r} can't be read ({why}).") from None
    if len(held) > MOST_BYTES:
        raise SecretFileError(f"{named}: {given.value} holds more than {MOST_BYTES} bytes, so it is no secret.")
    try:
        text = held.decode()
    except UnicodeDecodeError:
        # Without its cause, which holds the file's bytes.
        raise SecretFileError(f"{named}: {given.value} is not UTF-8.") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretFileError(f"{named}: {given.value} is empty.")
    return Secret(text)
