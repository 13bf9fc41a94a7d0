"""From sources (headrace.toml, environment, options) to :class:`Settings`. Each value keeps its origin, and every
fault is found at once.

A secret is masked from the moment it is read. ``section.field_file`` names the file that holds the secret
``section.field``; the variable HEADRACE_KAFKA__SASL_PASSWORD_FILE is an example. Container platforms mount secrets as
files, and a file shows in no list of processes and no dump of an environment. Secrets as arguments are refused.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from headrace.config.settings import Settings
from headrace.core.errors import UserError
from headrace.core.fields import FieldError, Secret, conform, is_secret, refusal, without_metadata


def to_type(value: object, wanted: Any, *, is_text: bool) -> object:
    """Convert ``value`` to the type ``wanted``. Raises FieldError.

    Text (environment, options) becomes a number or a truth value where that is wanted; a list has commas, a map
    ``name=value`` with commas. Values of a file have types already, and must have the right one.
    """
    parsed = value
    if is_text and isinstance(value, str):
        info = inspect.type_info(wanted)
        match without_metadata(info):
            case inspect.VarTupleType():
                parsed = [part.strip() for part in value.split(",") if part.strip()]
            case inspect.DictType():
                pairs = [part.partition("=") for part in value.split(",") if part.strip()]
                if any(not equals for _, equals, _ in pairs):
                    raise refusal(value, info)
                parsed = {name.strip(): one.strip() for name, _, one in pairs}
    return conform(parsed, wanted, strict=not is_text)


def shown(value: object) -> str:
    """A value as text in which it can be set again; a secret as its mask."""
    match value:
        case None:
            return "(not set)"
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return ",".join(f"{name}={one}" for name, one in value.items())
        case _:
            return str(value)


PREFIX = "HEADRACE_"
DEFAULT_FILE = Path("headrace.toml")

_NO_SETTINGS = frozenset({"HEADRACE_DATA"})  # Of the tests and benchmarks: where their data is.

_KEY = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_TABLE_LINE = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_FIELD_LINE = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


class SettingsError(UserError):
    """Settings that can't be used. The message has a line for each: the key, where it came from, what is allowed."""

    exit_code = 2


class Given(msgspec.Struct, frozen=True):
    """A value as it was given. ``is_text``: the source has no types (environment, options).

    ``in_file``: the value names the file of a secret.
    """

    key: str
    value: object
    origin: str
    is_text: bool
    in_file: bool = False


def file_of(named: Path | None) -> Path | None:
    """The file to read: the ``named`` one, or else ./headrace.toml if it exists."""
    return named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)


def from_file(path: Path) -> Iterator[Given]:
    """Read a TOML file of sections. Raises SettingsError when it can't be read or is not such a file."""
    try:
        source = path.read_text(encoding="utf-8")
        document = tomllib.loads(source)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror or error}).") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: not a TOML file of ours (nested too deeply).") from error
    # This also catches bytes that are not UTF-8, and numbers with too many digits for Python.
    except ValueError as error:
        raise SettingsError(f"{path}: not a TOML file ({error}).") from error
    lines = _lines(source)
    for section, fields in document.items():
        if not isinstance(fields, dict):
            raise SettingsError(f"{section} ({path}): a setting stands in a section, as in [kafka].")
        for field, value in fields.items():
            key = f"{section}.{field}"
            line = f", line {lines[key]}" if key in lines else ""
            yield Given(key, value, f"{path}{line}", is_text=False)


def misspelt_in(environ: Mapping[str, str], keys: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Variables with our prefix that set nothing, because they lack two underscores, each with the nearest right
    name.
    """
    settings = {PREFIX + key.replace(".", "__").upper(): key for key in keys}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or (name.startswith(PREFIX) and "__" in name) or name in _NO_SETTINGS:
            continue
        same = [one for one in settings if one.replace("__", "_") == upper.replace("__", "_")]
        yield name, next(iter(same or difflib.get_close_matches(upper, settings, n=1, cutoff=0.8)), None)


def from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    """Read HEADRACE_SECTION__FIELD. Other variables with our prefix but no ``__`` are no settings."""
    for name, value in sorted(environ.items()):
        section, parted, field = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and parted:
            yield Given(f"{section}.{field}".lower(), value, f"environment variable {name}", is_text=True)


def from_sets(sets: Sequence[str]) -> Iterator[Given]:
    """Read ``section.field=value``. Raises SettingsError, without the value: it may be a secret."""
    for assignment in sets:
        key, equals, value = assignment.partition("=")
        if not equals or not _KEY.fullmatch(key):
            named = f"--set {key}=..." if equals else "--set"
            raise SettingsError(f"{named}: write it as section.field=value, for example kafka.client_id=mine.")
        yield Given(key, value, "--set", is_text=True)


def from_options(options: Mapping[str, tuple[str, str | int | float | None]]) -> Iterator[Given]:
    """Read a command's own options: each name maps to the setting's key and the value, which is None if absent."""
    for option, (key, value) in options.items():
        if value is not None:
            yield Given(key, str(value), option, is_text=True)


def last_of_each(given: Iterable[Given]) -> dict[str, Given]:
    """The last value of each key, which is the one that counts."""
    return {one.key: one for one in given}


def _lines(source: str) -> dict[str, int]:
    """Find the line of each key, for messages: plain tables and keys, as people write them."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(source.splitlines(), start=1):
        if table := _TABLE_LINE.match(line):
            section = table[1]
        elif field := _FIELD_LINE.match(line):
            found.setdefault(f"{section}.{field[1]}", number)
    return found


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


DEFAULT = "default"

Options = Mapping[str, tuple[str, str | int | float | None]]


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and of each key (``section.field``) where its value came from."""

    settings: Settings
    origins: dict[str, str]
    ignored: tuple[tuple[str, str | None], ...] = ()
    """Variables of the environment that look like settings and are none, each with the nearest that is one."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, value (secrets masked) and origin of every setting."""
        for key, origin in self.origins.items():
            section, _, field = key.partition(".")
            yield key, shown(getattr(getattr(self.settings, section), field)), origin


def load_settings(
    file: Path | None, environ: Mapping[str, str], sets: Sequence[str] = (), options: Options | None = None
) -> Loaded:
    """Load settings: defaults, then ``file``, ``environ``, a command's ``options`` and ``sets``; the last one counts.

    ``options`` maps an option's name to the key that it stands for and its value (None: not given). Secrets may be in
    files (:mod:`headrace.config.loading`) and never in ``sets``.
    Raises SettingsError with a line for every unknown key, wrong type and impossible combination.
    """
    types = {section.name: _field_types(section.type) for section in msgspec.structs.fields(Settings)}
    secrets = _secrets(types)
    arguments = tuple(from_sets(sets))
    sources = (
        from_file(file) if file is not None else (),
        from_environment(environ),
        from_options(options or {}),
        arguments,
    )
    faults = [refuse_argument(one.key) for one in arguments if one.key in secrets]
    try:
        given = last_of_each(one for source in sources for one in name_secrets(source, secrets))
    except SecretFileError as fault:
        raise SettingsError(str(fault)) from fault
    values: dict[str, dict[str, object]] = {section: {} for section in types}
    for one in given.values():
        section, _, field = one.key.partition(".")
        wanted = types.get(section, {}).get(field)
        if wanted is None:
            faults.append(f"{one.key} ({one.origin}): no such setting. {_nearest(section, field, types)}")
            continue
        try:
            value = read_secret(one) if one.in_file else one.value
            values[section][field] = to_type(value, wanted, is_text=one.is_text)
        except SecretFileError as fault:
            faults.append(str(fault))
        except FieldError as fault:
            faults.append(f"{one.key} ({one.origin}): {fault}.")
    if faults:
        raise SettingsError("\n".join(faults))
    settings = _build(values, given)
    keys = [f"{section}.{field}" for section, fields in types.items() for field in fields]
    misspelt = tuple(misspelt_in(environ, keys))
    return Loaded(settings, {key: _origin(given[key]) if key in given else DEFAULT for key in keys}, misspelt)


def _build(values: Mapping[str, Mapping[str, object]], given: Mapping[str, Given]) -> Settings:
    sections: dict[str, Any] = {}
    faults: list[str] = []
    for section in msgspec.structs.fields(Settings):
        try:
            sections[section.name] = section.type(**values[section.name])
        except ValueError as error:
            faults.append(f"{section.name}: {_sentence(error)}{_origins(given, [section.name])}")
    if faults:
        raise SettingsError("\n".join(faults))
    try:
        return Settings(**sections)
    except ValueError as error:
        named_first = str(error).partition(":")[0]
        named = [named_first] if named_first in sections else [key for key in given if key in str(error)]
        raise SettingsError(f"{_sentence(error)}{_origins(given, named)}") from error


def _sentence(error: ValueError) -> str:
    said = str(error)
    return said if said.endswith((".", "?")) else f"{said}."


def _origin(given: Given) -> str:
    return f"file {given.value}, named by {given.origin}" if given.in_file else given.origin


def _secrets(types: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(
        f"{section}.{field}"
        for section, fields in types.items()
        for field, wanted in fields.items()
        if is_secret(inspect.type_info(wanted))
    )


def _origins(given: Mapping[str, Given], of: Sequence[str]) -> str:
    """Say which keys, or keys of the sections, ``of`` were set and where, since a default can't be what is wrong."""
    came = [f"{key} from {one.origin}" for key, one in given.items() if key in of or key.partition(".")[0] in of]
    return f" Set here: {', '.join(came)}." if came else ""


def _field_types(section: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def _nearest(section: str, field: str, types: Mapping[str, Mapping[str, Any]]) -> str:
    known = [f"{name}.{one}" for name, fields in types.items() for one in fields]
    close = difflib.get_close_matches(f"{section}.{field}", known, n=1, cutoff=0.75)
    if close:
        return f"Did you mean {close[0]}?"
    if section in types:
        return f"Known in {section}: {', '.join(types[section])}."
    return f"Known sections: {', '.join(types)}."
