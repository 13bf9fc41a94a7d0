"""From what a user calls a version, an alias or the beginning of a name, to its record."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from headrace.core.errors import UserError
from headrace.core.restarts import EXIT_SETTINGS
from headrace.registry.models_log import ModelsLog
from headrace_schemas.records import ModelVersion

NEAR_NAMES = 3
SHOWN = 3


class VersionNotFoundError(UserError):
    """What was asked for names no version."""


class SeveralVersionsError(VersionNotFoundError):
    """What was asked for is the beginning of several versions."""

    exit_code = EXIT_SETTINGS


def find_version(log: ModelsLog, name: str, wanted: str) -> ModelVersion:
    """The version of model ``name`` that ``wanted`` means: an alias, as a worker resolves it; else a version's name;
    else the beginning of one name, or of the hash at its end.

    Raises VersionNotFoundError when none fits, and when an alias points at a version whose record is gone; of several
    SeveralVersionsError, which is one too.
    """
    pointer = log.aliases.get((name, wanted))
    found = log.resolve(name, wanted) if pointer is not None else _named(log, name, wanted)
    if found is None:
        raise VersionNotFoundError(f"{nothing_named(log, name, wanted)}.")
    return found


def nothing_named(log: ModelsLog, name: str, wanted: str, *, followed: bool = False) -> str:
    """That ``wanted`` names no version of model ``name``, what there is, and what to do about it.

    ``followed``: it may be an alias that is not there yet.
    """
    pointer = log.aliases.get((name, wanted))
    if pointer is not None:
        return f"alias {wanted!r} of model {name!r} points at {pointer.version}, of which there is no record"
    versions = [version for of, version in log.versions if of == name]
    # Who mistyped a name must not be led to publish under it.
    if near := _near_names(log, name, wanted):
        known = f"did you mean {' or '.join(map(repr, near))}? `headrace models list` shows all"
    elif versions:
        aliases = sorted(alias for of, alias in log.aliases if of == name)
        named = f"aliases {_some(aliases)} and " if aliases else ""
        known = f"there are {named}versions {_some(sorted(versions, reverse=True))} (`headrace models list`)"
        if followed:
            known += f"; `headrace models promote VERSION --alias {wanted}` makes it an alias"
    else:
        others = sorted({of for of, _ in log.versions})
        hint = f"; worker.model_name names the model, and there are {_some(others)}" if others else ""
        alias = f" --alias {wanted}" if followed else ""
        return (
            f"model {name!r} has no version yet{hint}: publish one with `headrace models publish FILE{alias}`, "
            "or let a trainer do it"
        )
    return f"model {name!r} has no version or alias {wanted!r}: {known}"


def _named(log: ModelsLog, name: str, wanted: str) -> ModelVersion | None:
    """The version of that name, or the one that begins so. Raises SeveralVersionsError."""
    if (name, wanted) in log.versions:
        return log.versions[name, wanted]
    fits = [known for of, known in log.versions if of == name and _begins(known, wanted)]
    if len(fits) > 1:
        raise SeveralVersionsError(
            f"{wanted!r} is the beginning of {len(fits)} versions of model {name!r}: {_some(sorted(fits))}. "
            "Give more of it."
        )
    return log.versions[name, fits[0]] if fits else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _near_names(log: ModelsLog, name: str, wanted: str) -> list[str]:
    """Aliases and versions of model ``name`` that are spelled nearly like ``wanted``, the nearest first."""
    spelled = {known.casefold(): known for of, known in [*log.versions, *log.aliases] if of == name and known != wanted}
    return [spelled[near] for near in get_close_matches(wanted.casefold(), spelled, n=NEAR_NAMES, cutoff=0.75)]


def _begins(version: str, wanted: str) -> bool:
    # A version is TIME-HASH, or HASH alone.
    return bool(wanted) and (version.startswith(wanted) or version.rpartition("-")[2].startswith(wanted))
