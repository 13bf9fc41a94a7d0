"""Errors for the person at the terminal. One place prints them without a traceback, several at once if need be."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right; the message says what happened, to what, and what to do.

    ``exit_code`` is the status that the command line ends with.
    """

    exit_code = 1


class NoProgramError(UserError, FileNotFoundError):
    """A program is not there, or this user must not run it."""

    exit_code = 2


class InterruptedChildError(UserError):
    """SIGINT ended a child process. We send it to none: Ctrl-C came before the child had a session of its own."""


class StoppedError(UserError):
    """A signal ended the work before its end; ``known`` says what is known to be done."""

    def __init__(self, number: signal.Signals, known: str = "") -> None:
        self.exit_code = 128 + number
        super().__init__(f"Stopped by {number.name}. {known}".rstrip())


@contextmanager
def noting(known: Callable[[], str]) -> Iterator[None]:
    """Wraps work that may end half-done. An error that ends it, Ctrl-C and a cancellation too, gets ``known()`` as a
    note.

    An empty note, or one that the error has already, is left out.
    """
    try:
        yield
    except BaseException as error:
        note_once(error, known())
        raise


def note_once(error: BaseException, note: str) -> None:
    """Add ``note`` to ``error``, unless it is empty or there already."""
    if note and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def one_of_all(errors: BaseExceptionGroup[Exception] | Iterable[Exception]) -> Exception:
    """Choose the error to raise from ``errors``, of which there is at least one; the others become notes. Groups are
    unfolded.

    A fault of the program comes first, because its traceback has to be seen. Then comes the error with the highest exit
    code, because a restart does not mend it.
    """
    told: dict[str, Exception] = {}
    for error in _leaves([errors] if isinstance(errors, BaseExceptionGroup) else errors):
        told.setdefault(_line(error), error)
    first = max(told.values(), key=lambda error: (not _ours(error), getattr(error, "exit_code", 1)))
    for line, error in told.items():
        if error is not first:
            first.add_note(f"At the same time: {line}")
    return first


def raise_failed(outcomes: Iterable[object]) -> None:
    """Raise the errors among ``outcomes`` of a gather that returns exceptions, if there are any.

    A cancellation goes first. Of several errors one is raised, and the others are its notes.
    """
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in failed:
        if not isinstance(error, Exception):
            raise error
    if failed:
        raise one_of_all(error for error in failed if isinstance(error, Exception))


def with_notes(error: BaseException) -> str:
    """The text that people see of an error: its message and its notes, a line each."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def notes_behind(interrupt: BaseException) -> str:
    """The notes of an interrupt and of its context: asyncio turns Ctrl-C into a cancellation and back."""
    notes: list[str] = []
    error: BaseException | None = interrupt
    while error is not None:
        notes += getattr(error, "__notes__", ())
        error = error.__context__
    return " ".join(dict.fromkeys(notes))


def words_of(error: BaseException) -> str:
    """The text of an error for a record or a log line: our own errors' messages, and only the type of any other error.

    Messages of libraries and drivers may hold secrets.
    """
    if isinstance(error, Exception) and _ours(error):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}, an error that was not foreseen"


def frames_of(error: BaseException) -> str:
    """Where an unforeseen error was raised: the lines of its traceback without its message."""
    return "".join(traceback.format_tb(error.__traceback__))


def _leaves(errors: Iterable[BaseException]) -> Iterator[Exception]:
    for error in errors:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error.exceptions)
        elif isinstance(error, Exception):
            yield error


def _ours(error: Exception) -> bool:
    """Whether the error was written for people. Other libraries' errors that come this far were not foreseen."""
    return type(error).__module__.partition(".")[0].startswith("headrace")


def _line(error: Exception) -> str:
    return with_notes(error) if _ours(error) else f"{type(error).__name__}: {with_notes(error)}"
