"""From sources to :class:`Settings`: every fault is found at once, and said with its key and origin."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from headrace.config.settings import Settings
from headrace.config.sources import (
    Given,
    SecretFileError,
    SettingsError,
    from_environment,
    from_file,
    from_options,
    from_sets,
    last_of_each,
    misspelt_in,
    name_secrets,
    read_secret,
    refuse_argument,
    shown,
    to_type,
)
from headrace.core.fields import FieldError, is_secret

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
    files (:mod:`headrace.config.sources`) and never in ``sets``.
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
