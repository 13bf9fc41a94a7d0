"""`headrace` with a store that can fail: URIs faulty://PATH are files, and PATH.fault says what is wrong with one.

$ python -m load.chaos.programs.faulty_store worker --model champion

The file says `hangs` (nothing is read until it is gone), `half` (all bytes are promised, half of them come) or
`refuses`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.cli import main

LOOK_S = 0.1


class FaultyStore(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local folder whose reads go wrong as told."""

    protocol: ClassVar[tuple[str, ...]] = ("faulty",)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """All bytes, unless a fault says otherwise."""
        told = Path(f"{self._strip_protocol(path)}.fault")
        while (fault := told.read_text() if told.exists() else "") == "hangs":
            time.sleep(LOOK_S)
        if fault == "refuses":
            raise PermissionError("403: access denied")
        data: bytes = super().cat_file(path, start, end, **options)
        return data[: len(data) // 2] if fault == "half" else data


if __name__ == "__main__":
    fsspec.register_implementation("faulty", FaultyStore)
    main()
