"""Texts, a teacher and a place for the labels: what `headrace teach` does, and a training before it begins.

A text is asked about once: texts that the place holds already by this teacher, and repeats, are skipped. Before each
call its highest cost is compared with the money that is left. Labels are written after each call, so a run that is
ended, by whatever means, loses one call at most, and the next run goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import msgspec
import numpy as np

from headrace.core.text import given_as
from headrace.kafka.interface import Cluster, Outgoing, UnknownTopicError
from headrace.kafka.range_reader import read_topic
from headrace.labeller.teachers.interface import Failure, Identity, Spent, Teacher, TeacherError
from headrace_schemas.codec import encode_machine_label
from headrace_schemas.records import MachineLabel, Score
from headrace_schemas.topics import machine_label_key, text_key

LEAST_SCORE = 1e-6
"""Lower scores are left out: of a thousand classes they come to a thousandth."""
FRUITLESS = 3
"""After so many calls in a row that label nothing, the teacher is given up."""


class Asked(NamedTuple):
    """A text, and where it came from."""

    text: str
    source: str | None = None


class Labelled(NamedTuple):
    """A text with the teacher's scores, the highest first, and what it cost."""

    asked: Asked
    scores: tuple[Score, ...]
    cost: float = 0.0


class Place(Protocol):
    """Where labels go. ``known`` are the keys of the texts that it holds already, by this teacher."""

    @property
    def known(self) -> set[str]: ...

    async def put(self, labels: Sequence[Labelled]) -> None: ...

    async def close(self) -> None: ...


class Bounds(msgspec.Struct, frozen=True):
    """How many ``texts`` may be asked about, and how much ``money`` they may cost; None is no bound."""

    texts: int | None = None
    money: float | None = None


class Course(msgspec.Struct):
    """How far it has come. ``ended`` says why it ended early; "" if all texts were asked about."""

    asked: int = 0
    labelled: int = 0
    known: int = 0
    empty: int = 0
    spent: Spent = Spent()
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    ended: str = ""


async def teach(
    texts: AsyncIterable[Asked],
    teacher: Teacher,
    place: Place,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    tell: Callable[[Course], None] = lambda _: None,
) -> Course:
    """Label ``texts`` into ``place``; ``tell`` is told after each call.

    Raises TeacherError when the teacher can't be used, or labelled nothing in several calls.
    """
    course, fruitless = Course(), 0
    async for batch in _batches(texts, teacher.batch, place, course, bounds):
        waiting = batch
        while waiting:
            part = _affordable(waiting, teacher, bounds, course)
            if not part:
                course.ended = "the budget is spent"
                return course
            waiting = waiting[len(part) :]
            labels, failures = await _label(part, teacher, course)
            await place.put(labels)
            place.known.update(text_key(one.asked.text) for one in labels)
            tell(course)
            fruitless = 0 if labels else fruitless + 1
            if fruitless == FRUITLESS:
                raise _fruitless(teacher.identity, failures)
    return course


async def _label(part: Sequence[Asked], teacher: Teacher, course: Course) -> tuple[list[Labelled], dict[int, Failure]]:
    found = await teacher.label([one.text for one in part])
    course.asked += len(part)
    course.spent += found.spent
    course.failed.update(one.code for one in found.failures.values())
    count = len(part) - len(found.failures)
    cost = found.spent.cost / count if count else 0.0
    labels = [
        Labelled(one, ranked(row, teacher.labels), cost)
        for number, (one, row) in enumerate(zip(part, found.scores, strict=True))
        if number not in found.failures
    ]
    course.labelled += len(labels)
    return labels, found.failures


def _affordable(waiting: Sequence[Asked], teacher: Teacher, bounds: Bounds, course: Course) -> Sequence[Asked]:
    """As many of ``waiting`` as the money that is left may pay for."""
    part = waiting
    if bounds.money is None:
        return part
    left = bounds.money - course.spent.cost
    while part and teacher.within([one.text for one in part]).cost > left:
        part = part[: len(part) // 2]
    return part


def _fruitless(identity: Identity, failures: dict[int, Failure]) -> TeacherError:
    first = next(iter(failures.values()))
    error = TeacherError(
        f"{identity.teacher}: labelled no text in {FRUITLESS} calls, so it was given up. Of the last call:"
        f" {first.message}."
    )
    error.add_note("What was labelled before is kept; the same command goes on from there.")
    return error


async def _batches(
    texts: AsyncIterable[Asked], size: int, place: Place, course: Course, bounds: Bounds
) -> AsyncIterator[list[Asked]]:
    """Texts that were not asked about yet, ``size`` at a time."""
    batch: list[Asked] = []
    taken = set[str]()
    async for one in texts:
        if bounds.texts is not None and len(taken) == bounds.texts:
            course.ended = f"{bounds.texts:,} texts were asked about"
            break
        if not one.text.strip():
            course.empty += 1
            continue
        key = text_key(one.text)
        if key in place.known or key in taken:
            course.known += 1
            continue
        taken.add(key)
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def ranked(scores: np.ndarray[tuple[int], np.dtype[np.float32]], labels: Sequence[str]) -> tuple[Score, ...]:
    """The labels with their scores, the highest first; of equal scores the first label."""
    order = np.argsort(-scores, kind="stable").tolist()
    return tuple(Score(labels[one], round(float(scores[one]), 7)) for one in order if scores[one] >= LEAST_SCORE)


class _Line(msgspec.Struct, frozen=True):
    text: str
    teacher: str


class FilePlace:
    """JSON lines in a file: text, teacher, label and scores. A file that is there already is continued.

    Raises TeacherError for a file that holds something else, or labels of another teacher, and OSError.
    """

    def __init__(self, file: Path, version: str) -> None:
        self._version = version
        self.known: set[str] = set()
        end = 0
        if file.exists():
            end = self._read(file)
        self._opened: IO[bytes] = file.open("r+b" if file.exists() else "xb")
        # The last line may be half a line, if a process was killed while it wrote.
        self._opened.truncate(end)
        self._opened.seek(end)

    def _read(self, file: Path) -> int:
        end = 0
        with file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    one = msgspec.json.decode(line, type=_Line)
                except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                    raise TeacherError(
                        f"{file} line {number}: is no label of a teacher, so the file is left as it is. Name another."
                    ) from None
                if one.teacher != self._version:
                    raise TeacherError(
                        f"{file} line {number}: is by the teacher {given_as(one.teacher, 60)}, and this one is"
                        f" {self._version}. Labels of two teachers are not mixed: name another file."
                    )
                self.known.add(text_key(one.text))
                end += len(line)
        return end

    async def put(self, labels: Sequence[Labelled]) -> None:
        self._opened.write(b"".join(line_of(one, self._version) for one in labels))
        self._opened.flush()

    async def close(self) -> None:
        self._opened.close()


def line_of(one: Labelled, version: str) -> bytes:
    """A label as a line of a file, as :func:`headrace.learning.data.taught.read_taught` reads it."""
    scores = {score.label: score.score for score in one.scores}
    line = {"text": one.asked.text, "teacher": version, "label": one.scores[0].label, "scores": scores}
    return msgspec.json.encode(line) + b"\n"


class TopicPlace:
    """The topic of machine labels. To be opened by :func:`open_topic`."""

    def __init__(self, cluster: Cluster, topic: str, identity: Identity, now_ms: Callable[[], int]) -> None:
        self._topic = topic
        self._identity = identity
        self._now_ms = now_ms
        self._producer = cluster.producer()
        self.known: set[str] = set()

    async def open(self, cluster: Cluster) -> None:
        """Read what is known. Raises a KafkaError."""
        try:
            async for record in read_topic(cluster, self._topic, "machine labels"):
                self._take(record.key or b"", erased=record.value is None)
        except UnknownTopicError:
            raise UnknownTopicError(f"There is no topic {self._topic} for the labels.") from None
        await self._producer.start()

    def _take(self, key: bytes, *, erased: bool) -> None:
        kind, *rest = key.decode("utf-8", "replace").split("/")
        # No teacher is asked about a text that was erased.
        barred = kind == "barred" and len(rest) == 1
        if barred or (kind == "label" and len(rest) == 2 and rest[1] == self._identity.version):
            (self.known.discard if erased else self.known.add)(rest[0])

    async def put(self, labels: Sequence[Labelled]) -> None:
        if labels:
            await self._producer.send_many(self._topic, list(self._records(labels)))

    def _records(self, labels: Iterable[Labelled]) -> Iterator[Outgoing]:
        for one in labels:
            record = MachineLabel(
                text=one.asked.text,
                teacher=self._identity.version,
                labelled_at_ms=self._now_ms(),
                label=one.scores[0].label,
                scores=one.scores,
                prompt=self._identity.prompt,
                cost=one.cost,
                source=one.asked.source,
            )
            yield Outgoing(encode_machine_label(record), machine_label_key(record.text, record.teacher))

    async def close(self) -> None:
        await self._producer.stop()


class MemoryPlace:
    """Labels in this process, for a training that follows at once."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.labels: list[Labelled] = []

    async def put(self, labels: Sequence[Labelled]) -> None:
        self.labels += labels

    async def close(self) -> None:
        """Nothing is held but memory."""


async def each(texts: Iterable[Asked]) -> AsyncIterator[Asked]:
    """Texts that are there already, as those that come."""
    for one in texts:
        yield one
