"""Source files as trees: of tests that read the project's own code, and of pytest and tracebacks that read any."""

from __future__ import annotations

import ast
import gc
from typing import Any

_parse = ast.parse


def parsed(*source: Any, **options: Any) -> Any:
    """What ``ast.parse`` returns, while no garbage is collected.

    CPython before 3.11.8 and 3.12.2 raises SystemError where a parse is interrupted by another one (gh-106905). What is
    collected may log its error, or let another thread run that does, and a traceback is parsed for what to underline.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _parse(*source, **options)
    finally:
        if was_enabled:
            gc.enable()
