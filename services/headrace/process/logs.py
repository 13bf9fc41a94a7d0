"""Structured logs: one line for each event, for people or as JSON, and never a request's text.

``event("partition.resumed", partition=3, position=42)`` is all that a service calls. The first part of an event's
name names its logger (``headrace.partition``), so a part can be made quiet or loud by Python's own means.

A state that lasts or comes back is logged ever more rarely (:class:`Reminder`), so that it is seen without filling the
log.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from headrace.core.text import printable

LOGGER = "headrace"

# A text belongs to its sender. A mistake shows in the first test that logs the event.
FORBIDDEN_FIELDS = frozenset({"text", "texts", "value", "body"})

# For how many seconds a repeated message of another library is held back, and how many messages are remembered.
REPEAT_S = 10.0
MOST_MESSAGES = 1000

# Warnings and errors of one name that are let through in so many seconds. The others are counted, and told of then.
BURST = 50
BURST_S = 60.0

# An error's message may quote its input, so it is truncated.
LONGEST_FIELD = 2000

# Figures in the log keep so many digits, and always all digits before the point.
DIGITS = 4

# After so many seconds of silence a recurring event counts as new.
QUIET_S = 60.0

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def event(name: str, *, level: str = "info", exception: BaseException | None = None, **fields: object) -> None:
    """Log that ``name`` happened. ``level`` is debug, info, warning or error; ``exception`` adds its traceback.

    Raises ValueError for a field that would hold a request's text.
    """
    if forbidden := FORBIDDEN_FIELDS & fields.keys():
        raise ValueError(f"event {name}: {', '.join(sorted(forbidden))} may hold a text, and texts are never logged")
    logger = logging.getLogger(f"{LOGGER}.{name.partition('.')[0]}")
    if logger.isEnabledFor(_LEVELS[level]):
        # The message alone has all fields, for users of the client library, who have Python's own handlers.
        said = printable(" ".join([name, *_pairs(fields)]))
        logger.log(_LEVELS[level], "%s", said, exc_info=exception, extra={"event": name, "fields": fields})


FIRST_S: Final = 10.0
LONGEST_S: Final = 600.0
PATIENCE_S: Final = 5.0
"""How long a command waits before it says so."""


class Reminder:
    """Due at once for something new, then after ``first_s``, then after twice as long each time, up to ``longest_s``.

    All times are seconds of a clock that never runs backwards.
    """

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._what: str | None = None
        self._wait_s = 0.0
        self._due_s = 0.0
        self._unsaid = 0
        self.again = False
        """Whether the last thing was said before."""

    def due(self, what: str, now_s: float) -> bool:
        """Whether to say ``what`` now. If so, it counts as said.

        ``what`` must not contain counts or times, or it would be new each time.
        """
        self.again = what == self._what
        if self.again and now_s < self._due_s:
            return False
        self._wait_s = min(2 * self._wait_s, self._longest_s) if self.again else self._first_s
        self._what, self._due_s = what, now_s + self._wait_s
        return True

    def count(self, times: int, now_s: float) -> int:
        """Add ``times`` events. When it is due, returns the number of events since the last time; otherwise 0."""
        self._unsaid += times
        if not self._unsaid or not self.due("", now_s):
            return 0
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid

    def done(self) -> None:
        """Forget all, so that the next thing is new."""
        self._what = None


class Overdue:
    """Due when something has lasted ``first_s``, and again whenever it has lasted twice as long."""

    def __init__(self, first_s: float) -> None:
        self._next_s = first_s
        self.said = False
        """Whether it was said at all. If so, its end deserves a line too."""

    def due(self, lasted_s: float) -> bool:
        """Whether to say it now. If so, it counts as said."""
        if lasted_s < self._next_s:
            return False
        self.said = True
        self._next_s = 2 * lasted_s
        return True


class Recurring:
    """A warning about something that may fail again and again. It is logged at once, and then ever more rarely, with
    the number of times that were not logged.
    """

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._reminder = Reminder()
        self._last_s = -math.inf
        self._held_back = 0

    def event(self, **fields: Any) -> None:
        now = self._monotonic()
        if now - self._last_s > QUIET_S:
            self._reminder.done()
        self._last_s = now
        if not self._reminder.due(self._name, now):
            self._held_back += 1
            return
        held_back: dict[str, Any] = {"held_back": self._held_back} if self._held_back else {}
        self._held_back = 0
        event(self._name, level="warning", **fields, **held_back)


def configure(stream: TextIO, *, level: str = "info", form: str = "text") -> None:
    """Send every event, and the warnings of other libraries, to ``stream``; ``form`` is ``text`` or ``json``.

    It replaces an earlier configuration.
    """
    handler = BurstHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
        if isinstance(former, BurstHandler):
            former.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(_LEVELS[level])


def level() -> str:
    """How much is logged now: debug, info, warning or error."""
    return logging.getLevelName(logging.getLogger(LOGGER).getEffectiveLevel()).lower()


def change_level(to: str, why: str) -> None:
    """Log ``to`` and above from now on, and say so whatever the level is."""
    before = level()
    logging.getLogger(LOGGER).setLevel(_LEVELS[to])
    if to != before:
        event("log.level_changed", level="error", before=before, now=to, why=why)


class BurstHandler(logging.StreamHandler[TextIO]):
    """Writes lines, and of a burst of one warning or error the first BURST of it in BURST_S seconds.

    The others are counted by their event, in a table of at most MOST_MESSAGES, and told of at the end of that time:
    ``log.burst of=request.failed more=1240 seconds=60``. Lines of other levels all go out.
    """

    def __init__(self, stream: TextIO, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._monotonic = monotonic
        self._since_s = -math.inf
        self._seen: dict[str, int] = {}
        self._end: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``, or count it. Called under the handler's lock."""
        if record.levelno >= logging.WARNING and self._held(getattr(record, "event", record.name)):
            return
        super().emit(record)

    def _held(self, name: str) -> bool:
        now_s = self._monotonic()
        if now_s - self._since_s >= BURST_S or (name not in self._seen and len(self._seen) >= MOST_MESSAGES):
            self._tell()
            self._since_s = now_s
        self._seen[name] = seen = self._seen.get(name, 0) + 1
        if seen <= BURST:
            return False
        if self._end is None:
            # Nothing may be logged for hours after a burst, and its end has to be told all the same.
            self._end = threading.Timer(max(0.0, self._since_s + BURST_S - now_s), self.tell)
            self._end.daemon = True
            self._end.start()
        return True

    def tell(self) -> None:
        """Tell of what was held back so far."""
        with self.lock or nullcontext():
            self._tell()

    def close(self) -> None:
        """Tell of what was held back, as at the end of the process."""
        self.tell()
        super().close()

    def _tell(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        held = {name: seen - BURST for name, seen in self._seen.items() if seen > BURST}
        self._seen.clear()
        if self.stream.closed:  # whoever gave it has ended before the burst did
            return
        for name, more in held.items():
            fields = {"of": name, "more": more, "seconds": BURST_S}
            said = f"log.burst {' '.join(_pairs(fields))}"
            record = logging.LogRecord(f"{LOGGER}.log", logging.WARNING, "", 0, said, None, None)
            record.event, record.fields = "log.burst", fields
            super().emit(record)


class RepeatFilter(logging.Filter):
    """Lets a message of another library through once in ``REPEAT_S``, with the number of times that it was held back.

    aiokafka tries again every few milliseconds while a broker is away, and logs each try.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "fields"):
            return True
        # Compare the template, so that other numbers make no other message. A formatted message is truncated.
        key = (record.name, str(record.msg)[:80])
        since, held = self._held.get(key, (0.0, 0))
        if record.created - since < REPEAT_S:
            self._held[key] = since, held + 1
            return False
        if len(self._held) >= MOST_MESSAGES:
            self._held.clear()
        self._held[key] = record.created, 0
        if held:
            record.event, record.fields = record.name, {"message": record.getMessage(), "held_back": held}
        return True


class _EventFormatter(logging.Formatter):
    """Splits a log record into parts. A record of another library is an event named after its logger."""

    def parts(self, record: logging.LogRecord) -> tuple[str, str, str, dict[str, object]]:
        """Return time (ISO 8601, UTC), level, name and fields."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, object] | None = getattr(record, "fields", None)
        name = getattr(record, "event", record.name)
        if fields is None:
            fields = {"message": record.getMessage()}
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return time, record.levelname.lower(), name, {key: _short(value) for key, value in fields.items()}


class JsonFormatter(_EventFormatter):
    """One JSON object a line: time, level, event, and the event's fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        time, level, name, fields = self.parts(record)
        # A field never takes the place of these three.
        line: dict[str, object] = {"time": time, "level": level, "event": name}
        line |= {key: value for key, value in fields.items() if key not in line}
        return printable(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(_EventFormatter):
    """``2026-01-31T12:00:00.000Z info partition.resumed partition=3 position=42``."""

    def format(self, record: logging.LogRecord) -> str:
        time, level, name, fields = self.parts(record)
        return printable(" ".join([time, level, name, *_pairs(fields)]))


def _pairs(fields: Mapping[str, object]) -> Iterator[str]:
    for key, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _pairs({f"{key}.{inner}": one for inner, one in value.items()})
        else:
            yield f"{key}={_shown(_short(value))}"


def _short(value: object) -> object:
    """``value`` as it is logged: long strings truncated, figures rounded."""
    if isinstance(value, str) and len(value) > LONGEST_FIELD:
        return value[:LONGEST_FIELD] + "..."
    if isinstance(value, float) and value and math.isfinite(value):
        return round(value, max(0, DIGITS - 1 - math.floor(math.log10(abs(value)))))
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return value


def _shown(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
