"""From what a user calls a version, an alias or the beginning of a name, to its record."""

from __future__ import annotations

from difflib import get_close_matches

from headrace.core.errors import UserError
from headrace.registry.models_log import ModelsLog
from headrace_schemas.records import ModelVersion

NEAR_NAMES = 3


class VersionNotFoundError(UserError):
    """What was asked for names no version, or several."""


def find_version(log: ModelsLog, name: str, wanted: str) -> ModelVersion:
    """The version of model ``name`` that ``wanted`` means: an alias, as a worker resolves it; else a version's name;
    else the beginning of one name, or of the hash at its end.

    Raises VersionNotFoundError when none or several fit, and when an alias points at a version whose record is gone.
    """
    pointer = log.aliases.get((name, wanted))
    exact = log.versions.get((name, wanted if pointer is None else pointer.version))
    if exact is not None:
        return exact
    if pointer is not None:
        raise VersionNotFoundError(f"{wanted} of model {name!r} points at {pointer.version}, whose record is gone.")
    fits = [known for of, known in log.versions if of == name and _begins(known, wanted)]
    if len(fits) == 1:
        return log.versions[name, fits[0]]
    if fits:
        raise VersionNotFoundError(
            f"{wanted!r} is the beginning of {len(fits)} versions of model {name!r}: {', '.join(sorted(fits))}."
        )
    near = near_names(log, name, wanted)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise VersionNotFoundError(
        f"Model {name!r} has no version or alias {wanted!r}; `headrace models list` shows those that there are.{hint}"
    )


def near_names(log: ModelsLog, name: str, wanted: str) -> list[str]:
    """Aliases and versions of model ``name`` that are spelled nearly like ``wanted``, the nearest first."""
    spelled = {known.casefold(): known for of, known in [*log.versions, *log.aliases] if of == name and known != wanted}
    return [spelled[near] for near in get_close_matches(wanted.casefold(), spelled, n=NEAR_NAMES, cutoff=0.75)]


def _begins(version: str, wanted: str) -> bool:
    # A version is TIME-HASH, or HASH alone.
    return bool(wanted) and (version.startswith(wanted) or version.rpartition("-")[2].startswith(wanted))
