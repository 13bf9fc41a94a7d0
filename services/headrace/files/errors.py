"""What rows are refused for."""

from __future__ import annotations

from headrace.core.errors import UserError


class DatasetError(UserError):
    """Rows that can't be read or trained on; the message names the file, the line and what was expected."""
