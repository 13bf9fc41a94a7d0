"""A recording's rows: when each request came, how long its text was, and a hash of its key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.workload.spec import WorkloadError


class Row(Struct, frozen=True, omit_defaults=True):
    """One line of a recording.

    ``at`` is in seconds since the first record. ``bytes`` is the text's UTF-8, or the whole value's where it held no
    text, which ``bad`` says. ``key`` is a hash, None for a record without key; ``text`` is there when texts were kept.
    """

    at: float
    bytes: int
    key: str | None = None
    bad: bool = False
    text: str | None = None


class Recording(Struct, frozen=True, kw_only=True):
    """The rows as columns: ``at`` in seconds and ascending, ``sizes`` in bytes, ``keys`` one a row."""

    at: NDArray[np.float64]
    sizes: NDArray[np.int64]
    keys: tuple[bytes | None, ...]


def write_recording(rows: list[Row], path: Path) -> None:
    """Write ``rows`` in the order of their time, as JSON lines."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(sorted(rows, key=lambda row: row.at)))


def read_recording(path: str) -> Recording:
    """Read what :func:`write_recording` wrote. Raises WorkloadError, also when there is no row."""
    try:
        rows = msgspec.json.Decoder(Row).decode_lines(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise WorkloadError(f"{path} is no recording of `headrace-load record`: {error}") from error
    at = np.array([row.at for row in rows], dtype=np.float64)
    if not len(at) or at[0] < 0 or bool(np.any(np.diff(at) < 0)):
        raise WorkloadError(f"{path}: a recording has at least one row, and times from 0 that ascend")
    return Recording(
        at=at,
        sizes=np.array([row.bytes for row in rows], dtype=np.int64),
        keys=tuple(None if row.key is None else row.key.encode() for row in rows),
    )
