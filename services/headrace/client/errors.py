"""What can go wrong for who publishes and reads, beside Kafka's own errors and those of the wire."""

from __future__ import annotations

from headrace.core.errors import UserError


class ArgumentError(UserError, TypeError, ValueError):
    """What was given for an argument is none of what it may be. The message begins with the argument's name."""

    exit_code = 2


class MisuseError(UserError, RuntimeError):
    """The client can't be used so: entered twice, on another event loop, in another process, in its own thread.

    The message says what to do instead.
    """


class NoAnswerError(UserError, TimeoutError):
    """The answer did not come in time. The request may still be answered later, unless its timeout says otherwise."""


class LostAnswerError(UserError):
    """Later requests were answered and this one was not: the answer log has a hole here."""


class AnswerLogError(UserError):
    """The answer log is not the one that was read or written before: a topic was cut or made anew."""


class AnswersEndedError(UserError):
    """Answers are not read any more, for the reason that the message gives. The request may still be answered."""


class ClientClosedError(AnswersEndedError):
    """The client was closed, by the end of its ``async with``, under a call that was under way or before a new one.

    One that was not entered yet is closed as well.
    """
