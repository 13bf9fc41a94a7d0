"""The base of errors that are for the person at the terminal, so that one place can print them without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right; the message says what happened, to what, and what to do.

    ``exit_code`` is the status that the command line ends with.
    """

    exit_code = 1
