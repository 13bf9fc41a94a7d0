"""Requests made ahead of their time by a thread, so that making them delays none that is due."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from headrace_load.workload.requests import Planned

CHUNK = 1000
MOST_CHUNKS = 200
_due = attrgetter("due_s")


class Ahead:
    """At most :data:`MOST_CHUNKS` chunks of ``requests``, which are in the order of their time."""

    def __init__(self, requests: Iterator[Planned]) -> None:
        self._requests = requests
        self._chunks: deque[list[Planned]] = deque()
        self._at = 0  # in the first chunk
        self._room = threading.Semaphore(MOST_CHUNKS)
        self._filled = threading.Event()
        self._stopped = False
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fill, name="ahead", daemon=True)

    def start(self) -> None:
        """Begin to make requests, and return when there is no room for more, or no more to make."""
        self._thread.start()
        self._filled.wait()

    def stop(self) -> None:
        self._stopped = True
        self._room.release()
        self._thread.join()

    @property
    def exhausted(self) -> bool:
        """Whether all were taken. Raises what went wrong while they were made."""
        ended = self._ended  # looked at first: chunks may still come before it is set
        if self._chunks:
            return False
        if self._error is not None:
            raise self._error
        return ended

    def next_due_s(self) -> float | None:
        """When the next request is due; None when there is none yet, or no more."""
        return self._chunks[0][self._at].due_s if self._chunks else None

    def waiting(self, now_s: float) -> int:
        """How many of those made are due by ``now_s`` and were not taken."""
        count = -self._at if self._chunks else 0
        for chunk in tuple(self._chunks):
            if chunk[-1].due_s > now_s:
                return max(0, count + bisect_right(chunk, now_s, key=_due))
            count += len(chunk)
        return count

    def take(self, now_s: float, most: int) -> list[Planned]:
        """Take up to ``most`` requests that are due by ``now_s``."""
        taken: list[Planned] = []
        while self._chunks and len(taken) < most:
            chunk = self._chunks[0]
            until = len(chunk) if chunk[-1].due_s <= now_s else bisect_right(chunk, now_s, self._at, key=_due)
            until = min(until, self._at + most - len(taken))
            taken += chunk[self._at : until]
            self._at = until
            if until < len(chunk):
                break
            self._chunks.popleft()
            self._at = 0
            self._room.release()
        return taken

    def _fill(self) -> None:
        try:
            while not self._stopped and (chunk := list(itertools.islice(self._requests, CHUNK))):
                if not self._room.acquire(blocking=False):
                    self._filled.set()
                    self._room.acquire()
                self._chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 - it is raised where the requests are taken
            self._error = error
        self._ended = True
        self._filled.set()
