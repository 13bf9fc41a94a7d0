"""Versions of a model: from an artifact to its record, from a name to the record, from the record to the artifact, and
the removal of old ones.

A user names a version by itself, by its beginning or by an alias, and an artifact by a path or URI. An artifact that
lies anywhere becomes one in the store, where workers may open it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import msgspec

from headrace.core.errors import UserError
from headrace.core.text import printable
from headrace.model import store
from headrace.model.artifact import Artifact, beside, load, read_checked, weights_digest
from headrace.model.errors import ArtifactError, StoreError, StoreFault
from headrace.model.places import Location, Places, absolute, as_told, place_of
from headrace.model.signing import SignatureError, verify, verify_certificate
from headrace.process.lifecycle import EXIT_SETTINGS
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter
from headrace_schemas.records import ModelsRecord, ModelVersion


def version_record(artifact: Artifact, *, name: str, where: Location, now_ms: int) -> ModelVersion:
    """The record of ``artifact``, which lies there, as a version of model ``name``."""
    about = artifact.about
    return ModelVersion(
        name=name,
        version=artifact.version,
        uri=where.uri,
        path=where.path,
        sha256=artifact.sha256,
        size=artifact.size,
        labels=artifact.labels,
        created_at_ms=about.created_at_ms or now_ms,
        metrics=about.metrics,
        lineage=about.lineage,
        parent=about.parent,
        compression=about.compression,
        libraries=about.libraries,
        weights_sha256=weights_digest(artifact.network),
        profile=about.profile,
        threshold=about.threshold,
        untested=about.untested,
        unproven=about.lineage is not None and about.lineage.unproven,
    )


class PublishedElsewhereError(UserError):
    """The models topic has the version already, with another file or place."""


def published_again(
    known: ModelVersion | None, record: ModelVersion, *, trusted: Collection[str], move: bool
) -> ModelVersion:
    """The record to publish when the topic has ``known`` already. The time of the first record stays, and its place too
    unless ``move``. A record without a signature of ``trusted`` keys is ignored, because nobody would load it.

    Raises PublishedElsewhereError.
    """
    if known is None:
        return record
    try:
        verify(known, trusted)
    except SignatureError:
        return record
    what = f"Version {record.version} of model {record.name!r} was published"
    if known.sha256 != record.sha256:
        raise PublishedElsewhereError(
            f"{what} with another file: its SHA-256 is {known.sha256}, and that of this one {record.sha256}. A version "
            "never changes; train or assemble another one."
        )
    if known.uri != record.uri and not move:
        raise PublishedElsewhereError(
            f"{what} from {printable(known.uri)}, and workers load it from there. To point an alias at it: `headrace "
            f"models promote {record.version}`. If the file has moved: publish it with --move."
        )
    return msgspec.structs.replace(record, created_at_ms=known.created_at_ms)


class Floor(msgspec.Struct, frozen=True):
    """The lowest score, in [0, 1], of an answer with a label, and what set it: a certificate, or the rule of a
    raise.
    """

    score: float
    why: str


NO_FLOOR: Final = Floor(0.0, "")


def floor_of(log: ModelsLog, version: ModelVersion, trusted: Collection[str]) -> Floor:
    """The score below which ``version`` answers without a label, by its certificate and later raises.

    If there are ``trusted`` public keys, a certificate that none of them has signed is ignored. A certificate that is
    made after a raise replaces the raise.
    """
    key = (version.name, version.version)
    certificate, raised = log.certificates.get(key), log.raises.get(key)
    if certificate is not None:
        try:
            verify_certificate(certificate, trusted)
        except SignatureError:
            certificate = None
    certified = NO_FLOOR if certificate is None else Floor(certificate.threshold, "certificate")
    if raised is None or (certificate is not None and certificate.certified_at_ms > raised.raised_at_ms):
        return certified
    return max(certified, Floor(raised.threshold, raised.rule), key=lambda floor: floor.score)


NEAR_NAMES = 3
SHOWN = 3


class VersionNotFoundError(UserError):
    """No version has the name that was asked for."""


class SeveralVersionsError(VersionNotFoundError):
    """Several versions begin with the name that was asked for."""

    exit_code = EXIT_SETTINGS


def find_version(log: ModelsLog, name: str, wanted: str) -> ModelVersion:
    """The version of model ``name`` that ``wanted`` means: an alias, as a worker resolves it; else a version's name;
    else the beginning of one name, or of the hash at its end.

    Raises VersionNotFoundError when none fits, or when an alias points at a version whose record is gone; and its
    subclass SeveralVersionsError when several fit.
    """
    pointer = log.aliases.get((name, wanted))
    found = log.resolve(name, wanted) if pointer is not None else _named(log, name, wanted)
    if found is None:
        raise VersionNotFoundError(f"{nothing_named(log, name, wanted)}.")
    return found


def nothing_named(log: ModelsLog, name: str, wanted: str, *, followed: bool = False) -> str:
    """A message that ``wanted`` names no version of model ``name``, with the names that there are, and what to do.

    ``followed``: ``wanted`` may be an alias that does not exist yet.
    """
    pointer = log.aliases.get((name, wanted))
    if pointer is not None:
        return f"alias {wanted!r} of model {name!r} points at {pointer.version}, of which there is no record"
    versions = [version for of, version in log.versions if of == name]
    # A user who mistyped a name must not be led to publish under it.
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
    """The version with that name, or the one that begins with it. Raises SeveralVersionsError."""
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


def is_location(model: str) -> bool:
    """Whether ``model`` is a path or URI; an alias has no slash and no dot, and no file has its name."""
    return "/" in model or "." in model or Path(model).is_file()


class MissingFileError(ArtifactError):
    """There is no file at the path or URI that a user named."""


def load_named(model: str) -> Artifact:
    """Load the artifact at a path or URI that a user named. Raises ArtifactError, and MissingFileError for no file."""
    if "/" in model or Path(model).exists():
        try:
            return load(model)
        except StoreError as error:
            if error.fault is StoreFault.ABSENT:
                raise MissingFileError(str(error)) from error
            raise
    raise MissingFileError(
        f"{model}: there is no such artifact here. Aliases and versions, which have no dot in them, are names on "
        "Kafka: `headrace models show NAME` says where their artifact is."
    )


def load_version(record: ModelVersion, trusted: Collection[str], places: Places) -> Artifact:
    """Load the artifact of a version after checking the record's signature, and check it against the record.

    ``trusted`` as in :func:`headrace.model.signing.verify`; ``places`` are those where versions may lie. Raises
    SignatureError and StoreError, which are ArtifactErrors, before anything is opened, and ArtifactError when the file
    is absent, or not the one recorded.
    """
    verify(record, trusted)
    artifact = load(places.locate(record.uri), record.sha256, record.size)
    if artifact.labels != record.labels:
        raise ArtifactError(f"{record.uri} has the labels {artifact.labels}, the record of {record.version} others")
    if artifact.about.lineage != record.lineage:
        # The gate decides by the lineage, and no signature covers the record's copy.
        raise ArtifactError(f"{record.uri} has another lineage than the record of {record.version}")
    return artifact


def versions_folder(base: str, name: str) -> str:
    """The folder of the artifacts of model ``name`` in the store ``base``, a path or URI, as a URI."""
    return f"{place_of(base).uri.rstrip('/')}/{name}/versions"


def adopt(named: str, *, base: str, name: str, places: Places) -> tuple[Artifact, Location]:
    """The artifact that the operator names, and its location below ``places``. If it lies elsewhere, it is copied to
    ``base``, the store.

    Raises ArtifactError when the file is no artifact, or when the store, which has to be one of ``places``, can't be
    written.
    """
    whole = absolute(named)
    if places.has(whole):
        where = places.locate(whole)
        return load(where), where
    given = as_told(named)
    artifact = load(given)
    where = places.locate(f"{versions_folder(base, name)}/{artifact.version}.safetensors")
    # The bytes are copied as they are: another release of a library would write others.
    store.write(where, read_checked(given, artifact.sha256, artifact.size), artifact.sha256[:12])
    return artifact, where


class Removal(msgspec.Struct, frozen=True):
    """What happened to a version's file: its size in bytes, and the reason if it was left."""

    freed: int = 0
    kept: str | None = None


SHARED = "another version has the same artifact"

Remove = Callable[[ModelVersion], Awaitable[Removal]]
"""Removes the artifact of a version, as :func:`remove_artifact` does."""


def prunable(log: ModelsLog, name: str, keep: int) -> list[ModelVersion]:
    """The versions of model ``name`` that may go, oldest first.

    Versions that an alias points at or would be rolled back to stay, and so do the ``keep`` newest versions.
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

    The writer of a record chooses its URI. So the file has to lie below ``places``, the record has to be signed if
    there are ``trusted`` keys, and the file's bytes have to fit the record; any other file stays. Raises StoreError
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
    """Remove the prunable versions one by one. Returns each version with what happened to its file.

    A version's file is removed before its record, so the next run finishes an interrupted one. Raises what ``remove``
    and the writer raise.
    """
    for version in prunable(log, name, keep):
        # An alias may have been moved meanwhile.
        await log.refresh()
        if in_use(log, version):
            continue
        removal = Removal(kept=SHARED) if shared(log, version) else await remove(version)
        verdict = log.verdicts.get((version.name, version.version))
        gone: list[ModelsRecord] = [version] if verdict is None else [verdict, version]
        await writer.forget(gone)
        yield version, removal
