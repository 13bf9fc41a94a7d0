"""Source files as trees, for tests that read the project's own code."""

from __future__ import annotations

import ast
import gc


def parsed(source: str) -> ast.Module:
    """Parse ``source`` while no garbage is collected.

    A task that is collected may log its error, whose traceback is parsed for what to underline. CPython 3.11 takes a
    parse inside of a parse for an error of its own (gh-106905).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if was_enabled:
            gc.enable()
