"""Awaiting one's own answers by (partition, offset) of the acknowledgement, with no correlation id."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.client.errors import AnswerLogError, AnswersEndedError, LostAnswerError
from headrace.client.publishing import Published
from headrace.client.reading import Answer, AnswerReader
from headrace.core.answer_log import Hole
from headrace.core.clock import Clock
from headrace.kafka.interface import KafkaError
from headrace.process.logs import event
from headrace_schemas.records import ClassifyResult

RETRY_S = 0.2
MOST_EARLY = 100_000
"""Answers kept while a publish is under way: an answer can be faster than the acknowledgement of its request."""

_Place = tuple[int, int]


class Awaiter:
    """One reader at the end of the answer log for everybody who waits. :meth:`start` it before publishing."""

    def __init__(self, reader: AnswerReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._waiting: dict[_Place, tuple[int, asyncio.Future[ClassifyResult]]] = {}
        self._early: OrderedDict[_Place, ClassifyResult] = OrderedDict()
        self._publishing = 0
        self._running: asyncio.Task[None] | None = None
        self._ended: Exception | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started and still reads."""
        return self._running is not None and self._ended is None

    async def start(self) -> None:
        """Begin at the log's present end. Raises a KafkaError, and what :meth:`stop` was given meanwhile."""
        await self._reader.start()
        if self._ended is not None:
            await self._reader.stop()
            raise self._ended
        self._running = asyncio.create_task(self._run(), name="awaiter")

    async def stop(self, reason: Exception) -> None:
        """Stop reading; who still waits gets ``reason``, or what ended the reading before."""
        self._end(reason)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._reader.stop()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Around a publish and the :meth:`expect` of its answer."""
        self._publishing += 1
        try:
            yield
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._early.clear()

    def expect(self, published: Published) -> asyncio.Future[ClassifyResult]:
        """The answer to come; it fails with LostAnswerError, AnswerLogError or what ended the reader."""
        place = (published.partition, published.offset)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        if self._ended is not None:
            answer.set_exception(self._ended)
            return answer
        self._waiting[place] = (published.crc, answer)
        answer.add_done_callback(lambda _: self._waiting.pop(place, None))
        if (early := self._early.pop(place, None)) is not None:
            self._resolve(place, early)
        return answer

    async def _run(self) -> None:
        try:
            while True:
                try:
                    answers = await self._reader.read()
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    event("answers.retry", level="debug", error=str(error))
                    await self._clock.sleep(RETRY_S)
                    continue
                for answer in answers:
                    self._take(answer)
        except (KafkaError, AnswerLogError) as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
            event("answers.ended", level="error", error=repr(error))
            ended = AnswersEndedError(f"Reading the answers ended by {error!r}; the next call reads anew.")
            ended.__cause__ = error
            self._end(ended)

    def _end(self, reason: Exception) -> None:
        """Tell ``reason`` to everybody who waits, and to who comes later; the first one stands."""
        if self._ended is None:
            self._ended = reason
            for _, waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(reason)

    def _take(self, answer: Answer) -> None:
        if answer.hole is not None:
            self._lose(answer.partition, answer.hole)
        place = (answer.partition, answer.result.offset)
        if place in self._waiting:
            self._resolve(place, answer.result)
        elif self._publishing:
            self._early[place] = answer.result
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)

    def _resolve(self, place: _Place, result: ClassifyResult) -> None:
        crc, waiting = self._waiting[place]
        if waiting.done():
            return
        if result.crc == crc:
            waiting.set_result(result)
        else:
            waiting.set_exception(
                AnswerLogError(
                    f"The answer to request {place[1]} of partition {place[0]} is to another text: the requests topic "
                    "was cut or made anew, and the results topic was not."
                )
            )

    def _lose(self, partition: int, hole: Hole) -> None:
        for (number, offset), (_, waiting) in list(self._waiting.items()):
            if number == partition and hole.first <= offset <= hole.last and not waiting.done():
                waiting.set_exception(
                    LostAnswerError(
                        f"Request {offset} of partition {partition} was passed over: later ones were answered."
                    )
                )
