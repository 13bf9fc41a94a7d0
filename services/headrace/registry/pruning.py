"""Pruning: old versions that nothing points at, their artifacts and their records, are removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from headrace.model.artifact import beside
from headrace.registry.models_log import ModelsLog
from headrace.registry.models_writer import ModelsWriter
from headrace_schemas.records import ModelsRecord, ModelVersion


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
    """Whether another version lies at the same URI."""
    return any(other.uri == version.uri for other in log.versions.values() if other != version)


async def prune(
    log: ModelsLog, writer: ModelsWriter, name: str, keep: int, *, remove: Callable[[str], Awaitable[bool]]
) -> AsyncIterator[tuple[ModelVersion, int]]:
    """Remove what is prunable, one by one; each version with the bytes that it freed in the store.

    ``remove`` takes a URI and says whether something was there. A version's file goes before its record: a run that was
    cut off, or that the store refused, is finished by the next. Raises what ``remove`` and the writer raise.
    """
    for version in prunable(log, name, keep):
        # An alias may have been moved since.
        await log.refresh()
        if in_use(log, version):
            continue
        freed = 0
        if not shared(log, version):
            for uri in beside(version.uri):
                await remove(uri)
            freed = version.size if await remove(version.uri) else 0
        verdict = log.verdicts.get((version.name, version.version))
        gone: list[ModelsRecord] = [version] if verdict is None else [verdict, version]
        await writer.forget(gone)
        yield version, freed
