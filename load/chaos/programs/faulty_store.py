"""`headrace` with a store that can fail: PATH.fault says what is wrong with the file PATH.

$ python -m load.chaos.programs.faulty_store worker --model champion

The file says `hangs` (nothing is read until it is gone), `half` (all bytes are promised, half of them come) or
`refuses`.
"""

from __future__ import annotations

import time
from pathlib import Path

from headrace.cli import main
from headrace.model import local_files
from headrace.model.places import Location

LOOK_S = 0.1

_read = local_files.read


def read(where: Location, limit: int) -> bytes:
    """All bytes, unless a fault says otherwise."""
    told = Path(f"{where.uri.removeprefix('file://')}.fault")
    while (fault := told.read_text() if told.exists() else "") == "hangs":
        time.sleep(LOOK_S)
    if fault == "refuses":
        raise PermissionError("403: access denied")
    data = _read(where, limit)
    return data[: len(data) // 2] if fault == "half" else data


if __name__ == "__main__":
    local_files.read = read
    main()
