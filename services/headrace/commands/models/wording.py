"""Words that several of the models commands say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.registry.models_log import ModelsLog
    from headrace_schemas.records import ModelVersion


def aliases_of(log: ModelsLog, version: ModelVersion) -> list[str]:
    """The aliases that point at ``version``; a pinned one says so."""
    return sorted(
        f"{pointer.alias} (pinned)" if pointer.pinned else pointer.alias
        for pointer in log.aliases.values()
        if (pointer.name, pointer.version) == (version.name, version.version)
    )


def time_of(moment_ms: int) -> str:
    """A time in UTC to the second; ``moment_ms`` are milliseconds since the Unix epoch."""
    try:
        return f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
    # A record on the topic may say anything.
    except (ValueError, OverflowError, OSError):
        return f"{moment_ms} ms, which is no date"


def number(value: float) -> str:
    """A number as short as it can be read: whole ones without a point, others to four places or digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"
