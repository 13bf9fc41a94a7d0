"""The teacher `program:COMMAND`: a command that reads texts and writes scores, as JSON lines.

It is given `{"n": 7, "text": "..."}` a line on standard input, and writes for each of them one line to standard output,
in the same order and with the same `n`:

    {"n": 7, "scores": {"refund": 0.8, "card": 0.2}}
    {"n": 7, "label": "refund"}
    {"n": 7, "error": "why not"}

It may answer each line at once or many together, and goes on until its input ends. A program that is too slow, writes
endlessly, or writes what is no answer is killed with all that it started, and started anew for the next texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.text import given_as, label_name, printable
from headrace.labeller.teachers.interface import (
    Failure,
    Identity,
    Kind,
    SoftLabels,
    Spent,
    TeacherDiedError,
    TeacherError,
    TeacherName,
    Tell,
    identity_of,
    silent,
)
from headrace.labeller.teachers.prompt import one_hot
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.process.child_process import ending_with_parent

LONGEST_LINE = 1 << 20
"""Bytes of one answer: more labels than anybody has."""
MOST_STRAY_LINES = 100
"""So many lines of a call may be no answer, as of a library that prints to standard output."""

_BATCH = 64
_STDERR_KEPT = 2000
_END_S = 5.0
_LARGEST_FILE = 256 << 20


class _Line(msgspec.Struct, frozen=True):
    n: int
    scores: dict[str, float] | None = None
    label: str | None = None
    error: str | None = None


class _BrokenError(Exception):
    """The program can't be gone on with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ProgramTeacher:
    """A command as a teacher. Its environment is ours without what sets headrace.

    Raises TeacherError for a command that is none.
    """

    batch = _BATCH

    def __init__(
        self, name: TeacherName, labels: tuple[str, ...], settings: TeacherSettings, environ: Mapping[str, str]
    ) -> None:
        try:
            self._command = shlex.split(name.target or "")
        except ValueError as error:
            raise TeacherError(f"program: the command can't be taken apart: {error}.") from None
        if not self._command:
            raise TeacherError("program: names no command.")
        self._environ = {key: value for key, value in environ.items() if not key.startswith("HEADRACE_")}
        self._settings = settings
        self._places = {label: place for place, label in enumerate(labels)}
        self._process: asyncio.subprocess.Process | None = None
        self._said = b""
        self._listening: asyncio.Task[None] | None = None
        self._number = 0
        self._answered = False
        """Whether it ever answered: what ends before that is of no use, what ends later died over a text."""
        self.labels = labels
        self.malformed = 0
        """Lines that were no answer."""
        files = [_digest_of(one) for one in self._command]
        self.identity: Identity = identity_of(
            TeacherName(Kind.PROGRAM, name.target), labels, repr(settings.confidence).encode(), *files
        )

    def within(self, texts: Sequence[str]) -> Spent:  # noqa: ARG002 - what it costs nobody knows here
        return Spent()

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        failures: dict[int, Failure] = {}
        if not texts:
            return SoftLabels(scores, failures)
        process = await self._running()
        first, self._number = self._number, self._number + len(texts)
        writing = asyncio.create_task(self._write(process, texts, first))
        done = 0
        try:
            while done < len(texts):
                line = await self._next(process, first + done, first + len(texts))
                place = line.n - first
                for missed in range(done, place):
                    failures[missed] = Failure("missing", "the program wrote no line for this text")
                self._take(line, place, scores, failures)
                done = place + 1
                self._answered = True
                tell("labelling", done, len(texts))
        except _BrokenError as broken:
            code = await self._kill()
            if not self._answered and broken.failure.code == "ended":
                raise self._useless(code) from None
            for place in range(done, len(texts)):
                failures[place] = broken.failure
        except asyncio.CancelledError:
            await self._kill()
            raise
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await writing
        return SoftLabels(scores, failures)

    async def close(self) -> None:
        """Let the program see the end of its input, and kill it where it does not end by that."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                # What it still writes has to be read, or it would wait for us.
                while process.stdout is not None and await process.stdout.read(1 << 16):
                    pass
                await process.wait()
        await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._kill()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_parent(self._command, signal.SIGKILL),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                env=self._environ,
                # A group of its own, so that what it starts is killed with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise TeacherError(f"program: {given_as(self._command[0], 80)} can't be started: {error}.") from None
        self._said = b""
        self._listening = asyncio.create_task(self._listen(self._process))
        return self._process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of what the program says on standard error, for whoever runs it."""
        assert process.stderr is not None  # noqa: S101 - it was asked for
        while piece := await process.stderr.read(1 << 16):
            self._said = (self._said + piece)[-_STDERR_KEPT:]

    async def _write(self, process: asyncio.subprocess.Process, texts: Sequence[str], first: int) -> None:
        assert process.stdin is not None  # noqa: S101 - it was asked for
        # What breaks the pipe is seen by who reads.
        with contextlib.suppress(ConnectionError):
            for number, text in enumerate(texts, first):
                shown = cut_to_bytes(text, self._settings.max_text_bytes)
                process.stdin.write(msgspec.json.encode({"n": number, "text": shown}) + b"\n")
                await process.stdin.drain()

    async def _answer(self, process: asyncio.subprocess.Process) -> _Line | None:
        """The next line, None for one that is no answer. Raises _BrokenError."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        timeout = self._settings.timeout
        try:
            async with asyncio.timeout(timeout):
                line = await process.stdout.readline()
        except TimeoutError:
            raise _BrokenError(
                Failure(
                    "timed-out",
                    f"the program wrote no line for {timeout:g} s (teacher.timeout)",
                    passing=True,
                    deadly=True,
                )
            ) from None
        except ValueError:
            raise _BrokenError(
                Failure(
                    "malformed",
                    f"the program wrote a line of more than {LONGEST_LINE:,} bytes",
                    passing=True,
                    deadly=True,
                )
            ) from None
        if not line:
            raise _BrokenError(Failure("ended", "the program ended before it answered", passing=True, deadly=True))
        try:
            return msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, RecursionError):
            return None

    async def _next(self, process: asyncio.subprocess.Process, first: int, end: int) -> _Line:
        """The next line that answers one of the texts numbered from ``first`` on. Raises _BrokenError."""
        for _ in range(MOST_STRAY_LINES + 1):
            line = await self._answer(process)
            if line is not None and first <= line.n < end:
                return line
            self.malformed += 1
        raise _BrokenError(Failure("malformed", "the program writes what is no answer", passing=True, deadly=True))

    def _take(self, line: _Line, place: int, scores: NDArray[np.float32], failures: dict[int, Failure]) -> None:
        """Put what a line says into ``scores`` or ``failures``."""
        if line.error is not None:
            failures[place] = Failure("refused", "the program gave an error for this text")
            return
        said = {label_name(label): score for label, score in (line.scores or {}).items()}
        if line.label is not None:
            said = {label_name(line.label): 1.0}
        if not said.keys() <= self._places.keys():
            failures[place] = Failure("unknown-label", "the program gave a label that is none of those it may give")
            return
        row = np.zeros(len(self.labels))
        for label, score in said.items():
            row[self._places[label]] = score
        with np.errstate(over="ignore"):
            total = row.sum()
        if not (np.isfinite(total) and (row >= 0).all() and total > 0):
            self.malformed += 1
            failures[place] = Failure("malformed", "the program's scores are not numbers from 0 on, and more than 0")
        elif line.label is not None:
            scores[place] = one_hot(int(row.argmax()), len(self.labels), self._settings.confidence)
        else:
            scores[place] = row / total

    async def _kill(self) -> int | None:
        """End the program and all of its group; its exit code, None where there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        code = await process.wait()
        # Nothing public closes the pipes while somebody outside of the group holds their other ends.
        process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001
        await asyncio.sleep(0)
        if self._listening is not None:
            # A grandchild that left the group may hold the pipe open.
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._listening, 1.0)
        return code

    def _useless(self, code: int | None) -> TeacherDiedError:
        ended = "" if code is None or code == -signal.SIGKILL else f" (exit code {code})"
        error = TeacherDiedError(
            f"program: {given_as(self._command[0], 80)} ended{ended} before it labelled a text. It has to read"
            ' {"n": 7, "text": "..."} a line and to write {"n": 7, "scores": {"LABEL": 0.8}} for each.'
        )
        if said := self._said.decode("utf-8", "replace").strip():
            # A note goes to the terminal and never into a log: it may hold a text.
            error.add_note(f"It said: {printable(said, lines=True)}")
        return error


def cut_to_bytes(text: str, most: int) -> str:
    """The beginning of ``text`` that has at most ``most`` bytes of UTF-8."""
    encoded = text.encode("utf-8", "replace")
    return encoded[:most].decode("utf-8", "ignore") if len(encoded) > most else encoded.decode()


def _digest_of(argument: str) -> bytes:
    """What an argument is to a teacher's identity: a file's bytes, where it names one, so that a mended program counts
    as another.
    """
    file = Path(argument)
    with contextlib.suppress(OSError, ValueError):
        if file.is_file() and file.stat().st_size <= _LARGEST_FILE:
            return argument.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest()
    return argument.encode("utf-8", "replace")
