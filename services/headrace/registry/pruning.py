"""Pruning: old versions that nothing points at, their artifacts and their records, are removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import msgspec

from headrace.model import store
from headrace.model.artifact import beside, read_checked
from headrace.model.errors import ArtifactError, StoreError, StoreFault
from headrace.model.places import Places
from headrace.model.signing import verify
from headrace.registry.models_log import ModelsLog, ModelsWriter
from headrace_schemas.records import ModelsRecord, ModelVersion


class Removal(msgspec.Struct, frozen=True):
    """What became of a version's file: how many bytes it had, and, when it was left where it is, why."""

    freed: int = 0
    kept: str | None = None


SHARED = "another version has the same artifact"

Remove = Callable[[ModelVersion], Awaitable[Removal]]
"""Removes the artifact of a version, as :func:`remove_artifact` does."""


def prunable(log: ModelsLog, name: str, keep: int) -> list[ModelVersion]:
    """The versions of model ``name`` that may go, oldest first.

    What an alias points at, or would be rolled back to, stays, and so do the ``keep`` newest versions.
    """
    newest_first = sorted(
        (version for (of, _), version in log.versions.items() if of == name),
        key=lambda version: (version.created_at_ms, version.version),
        reverse=True,
    )
    return [version for version in reversed(newest_first[keep:]) if not in_use(log, version)]


def in_use(log: ModelsLog, version: ModelVersion) -> bool:
    """Whether an alias points at ``version``, or pointed at it before it was moved."""
    return any(
        version.version in (pointer.version, pointer.previous)
        for pointer in log.aliases.values()
        if pointer.name == version.name
    )


def shared(log: ModelsLog, version: ModelVersion) -> bool:
    """Whether another version has the same artifact: it lies at the same URI, or has the same bytes."""
    return any(
        other.uri == version.uri or other.sha256 == version.sha256
        for other in log.versions.values()
        if other != version
    )


def remove_artifact(version: ModelVersion, trusted: Collection[str], places: Places) -> Removal:
    """Remove what lies at the URI of ``version``, and the curves beside it, if it is the version's own artifact.

    Who writes a record chooses its URI. So the file has to lie below ``places``, the record has to be signed where keys
    are ``trusted``, and the bytes have to be those that it is the record of; any other file stays. Raises StoreError
    when the store can't be reached or refuses.
    """
    try:
        verify(version, trusted)
        where = places.locate(version.uri)
        if store.size_of(where) is None:
            return Removal()
        read_checked(where, version.sha256, version.size)
    except StoreError as error:
        if error.fault is not StoreFault.REFUSED:
            raise
        return Removal(kept=str(error))
    except ArtifactError as error:
        return Removal(kept=str(error))
    for curve in beside(where):
        store.remove(curve)
    return Removal(freed=version.size if store.remove(where) else 0)


async def prune(
    log: ModelsLog, writer: ModelsWriter, name: str, keep: int, *, remove: Remove
) -> AsyncIterator[tuple[ModelVersion, Removal]]:
    """Remove what is prunable, one by one; each version with what became of its file.

    A version's file goes before its record: a run that was cut off, or that the store refused, is finished by the next.
    Raises what ``remove`` and the writer raise.
    """
    for version in prunable(log, name, keep):
        # An alias may have been moved since.
        await log.refresh()
        if in_use(log, version):
            continue
        removal = Removal(kept=SHARED) if shared(log, version) else await remove(version)
        verdict = log.verdicts.get((version.name, version.version))
        gone: list[ModelsRecord] = [version] if verdict is None else [verdict, version]
        await writer.forget(gone)
        yield version, removal
