"""What a file of rows can be refused for."""

from __future__ import annotations

from headrace.core.errors import UserError


class FileError(UserError):
    """A file that can't be read, or a line of it; the message names both and what is allowed."""
