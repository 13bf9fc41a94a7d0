"""Workers that break one rule of the answer log each. The simulation has to catch every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.core.resume import Facts, Resume, decide
from headrace.kafka.interface import Outgoing, Record, TopicPartition
from headrace.worker.partitions.partition import Partition
from headrace.worker.partitions.resume import Resumer
from headrace.worker.stages.encode import Encoded
from headrace.worker.stages.fetch import Fetcher
from headrace.worker.stages.publish import Publisher
from headrace.worker.worker import Worker
from headrace_schemas.codec import decode_result, encode_result


class _FromCommit(Resumer):
    async def _facts(self, requests: Sequence[TopicPartition]) -> dict[TopicPartition, Facts]:
        return {
            name: facts if facts.committed is None else msgspec.structs.replace(facts, tail=(), results_end=1)
            for name, facts in (await super()._facts(requests)).items()
        }


class ResumesFromCommit(Worker):
    """Trusts the group's offsets, which anybody can set."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._resumer.__class__ = _FromCommit


class _AfterFromTail(_FromCommit):
    async def resume(self, partitions: Sequence[Partition]) -> None:
        honest = await Resumer._facts(self, [partition.name for partition in partitions])
        await super().resume(partitions)
        for partition in partitions:
            decision = decide(honest[partition.name])
            if isinstance(decision, Resume) and partition.resumed:
                partition.queue.after = decision.after


class AfterFromTail(Worker):
    """Fetches from the commit, but names the last answer in the log as the one before: a loss that no reader sees."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._resumer.__class__ = _AfterFromTail
        self._assignment._resume = self._resumer.resume


class CommitsFirst(ResumesFromCommit):
    """Commits what it is about to publish."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        send = self._pipeline._publisher._send

        async def commit_then_send(partition: Partition, encoded: Encoded, *more: Any) -> None:
            last = int(encoded.slice.requests.records.offsets[-1])
            partition.progress.answered(last, partition.progress.results_end)
            await self._committer.commit([partition])
            await send(partition, encoded, *more)

        self._pipeline._publisher._send = commit_then_send


class _NoTurns(Publisher):
    async def _in_turn(self, encoded: Encoded, *more: Any) -> None:
        early = msgspec.structs.replace(encoded, slice=msgspec.structs.replace(encoded.slice, turn=None))
        await super()._in_turn(early, *more)


class TwoInFlight(Worker):
    """Hands the next batch of a partition over before the one before it is acknowledged."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._pipeline._publisher.__class__ = _NoTurns


class CarriesOn(Worker):
    """Goes on behind a batch whose publishing failed."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._assignment.restart = lambda name, reason: None


class _NoCheck(Fetcher):
    def _take(self, partition: Partition, expected: int, records: Sequence[Record]) -> None:
        super()._take(partition, records[0].offset, records)


class KeepsWhatItFetched(Worker):
    """Does not look whether a chunk begins where it must: a fetch that a rebalance overtook slips in."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._pipeline._fetcher.__class__ = _NoCheck


class DropsABatch(Worker):
    """Loses a batch in seven between the model and the producer."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        publish = self._pipeline._publisher.publish
        seen = 0

        def publish_most(batch: Sequence[Encoded], *more: Any) -> None:
            nonlocal seen
            seen += 1
            fewer = [msgspec.structs.replace(e, answers=e.answers[:1]) for e in batch]
            publish(fewer if seen % 7 == 0 else batch, *more)

        self._pipeline._publisher.publish = publish_most


class _Altering(Worker):
    """Publishes what ``alter`` makes of the answers of each slice."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        publish = self._pipeline._publisher.publish

        def publish_altered(batch: Sequence[Encoded], *more: Any) -> None:
            publish([msgspec.structs.replace(e, answers=self.alter(e.answers)) for e in batch], *more)

        self._pipeline._publisher.publish = publish_altered

    def alter(self, answers: list[Outgoing]) -> list[Outgoing]:
        raise NotImplementedError


class Reorders(_Altering):
    """Exchanges the first two answers of a slice, each with the other's ``offset`` and ``after``: no reader sees it.

    The last answer stays as it is, because a worker that resumes looks whether it is to the request there.
    """

    def alter(self, answers: list[Outgoing]) -> list[Outgoing]:
        if len(answers) < 3:
            return answers
        one, two = (decode_result(answer.value) for answer in answers[:2])
        return [
            _pretending(answers[1], offset=one.offset, after=one.after),
            _pretending(answers[0], offset=two.offset, after=two.after),
            *answers[2:],
        ]


class AnswersTwice(_Altering):
    """Answers the first request of a slice again under the next one's offset: a reader takes that for news, and drops
    the answer that is due there. The last answer of a slice stays as it is, as above.
    """

    def alter(self, answers: list[Outgoing]) -> list[Outgoing]:
        if len(answers) < 3:
            return answers
        two = decode_result(answers[1].value)
        return [answers[0], _pretending(answers[0], offset=two.offset, after=two.after), *answers[1:]]


def _pretending(answer: Outgoing, **fields: int) -> Outgoing:
    result = msgspec.structs.replace(decode_result(answer.value), **fields)
    return msgspec.structs.replace(answer, value=encode_result(result))


class OutlivesItsLease(Worker):
    """Answers for as long as nobody revokes its partitions, which nobody can whom it doesn't hear."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._assignment.leased = lambda: True


BROKEN = (
    ResumesFromCommit, AfterFromTail, CommitsFirst, TwoInFlight, CarriesOn, KeepsWhatItFetched, DropsABatch, Reorders,
    AnswersTwice,
)  # fmt: skip
