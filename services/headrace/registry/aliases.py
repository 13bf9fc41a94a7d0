"""Moving an alias: the one place that makes the records that workers follow.

Each function makes a record from the log as it was last read; the caller publishes it. So the decisions are tested
without a broker. The rules:

- an alias points only at a version whose record the log holds;
- ``previous`` is the version that it pointed at before, so going back is one more move; a move to the version that it
  points at already keeps it;
- a pinned alias is moved by hand only, and stays pinned until it is unpinned.
"""

from __future__ import annotations

import msgspec

from headrace.core.errors import UserError
from headrace.registry.compacted_topics import ModelsLog
from headrace_schemas.records import ModelAlias


class AliasError(UserError):
    """An alias can't be moved as asked."""


class NoSuchVersionError(AliasError):
    """The models topic holds no record of the version."""


class PinnedAliasError(AliasError):
    """The alias is pinned, and the move was not asked for by hand."""


class NoPreviousVersionError(AliasError):
    """The alias has no previous version to go back to."""


def move(
    log: ModelsLog,
    name: str,
    alias: str,
    version: str,
    *,
    reason: str,
    now_ms: int,
    by_hand: bool = False,
    by: str | None = None,
) -> ModelAlias:
    """The record by which ``alias`` of model ``name`` points at ``version``, and who moves it, where that is known.

    Raises NoSuchVersionError for a version that the log does not hold, and PinnedAliasError for a pinned alias unless
    ``by_hand``.
    """
    if (name, version) not in log.versions:
        raise NoSuchVersionError(
            f"Model {name!r} has no version {version!r}; `headrace models list` shows those that there are."
        )
    pointer = log.aliases.get((name, alias))
    if pointer is None:
        return ModelAlias(name=name, alias=alias, version=version, moved_at_ms=now_ms, reason=reason, by=by)
    if pointer.pinned and not by_hand:
        raise PinnedAliasError(
            f"{alias} of model {name!r} is pinned to {pointer.version}. `headrace models unpin {alias}` lets the "
            "trainer move it again."
        )
    previous = pointer.previous if pointer.version == version else pointer.version
    return msgspec.structs.replace(
        pointer, version=version, previous=previous, moved_at_ms=now_ms, reason=reason, by=by
    )


def roll_back(log: ModelsLog, name: str, alias: str, *, reason: str, now_ms: int, by: str | None = None) -> ModelAlias:
    """The record by which ``alias`` points at its previous version; a second one goes forward again.

    By hand: a pin does not hold it. Raises NoPreviousVersionError when there is none or it was pruned.
    """
    pointer = pointer_of(log, name, alias)
    if pointer.previous is None:
        raise NoPreviousVersionError(
            f"{alias} of model {name!r} has pointed at nothing before {pointer.version}, so it can't be rolled back. "
            f"`headrace models promote VERSION --alias {alias}` moves it to any version."
        )
    if (name, pointer.previous) not in log.versions:
        raise NoPreviousVersionError(
            f"{alias} of model {name!r} pointed at {pointer.previous} before, whose record is gone. "
            "`headrace models list` shows the versions that there are."
        )
    return move(log, name, alias, pointer.previous, reason=reason, now_ms=now_ms, by_hand=True, by=by)


def set_pin(
    log: ModelsLog, name: str, alias: str, *, pinned: bool, reason: str, now_ms: int, by: str | None = None
) -> ModelAlias:
    """The record that pins ``alias`` where it is, so that it is only moved by hand; or that unpins it for the
    trainer.
    """
    pointer = pointer_of(log, name, alias)
    return msgspec.structs.replace(pointer, pinned=pinned, moved_at_ms=now_ms, reason=reason, by=by)


def pointer_of(log: ModelsLog, name: str, alias: str) -> ModelAlias:
    """Where ``alias`` of model ``name`` points. Raises AliasError when there is no such alias."""
    pointer = log.aliases.get((name, alias))
    if pointer is None:
        known = ", ".join(sorted(one for of, one in log.aliases if of == name)) or "none"
        raise AliasError(f"Model {name!r} has no alias {alias!r} (there: {known}).")
    return pointer
