"""A group that reads the answer log over the twin, on a turned clock: members join, leave, freeze and are killed.

The judge knows the whole log: which answers a reader that never ended accepts, and which holes it says. One run is one
interleaving, chosen by its seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.client import Answer, GroupReader
from headrace.core.answer_log import Hole, PartitionReader
from headrace.kafka.interface import BrokerUnavailableError, KafkaError, Outgoing, Record, TopicPartition, TopicSpec
from headrace_schemas.codec import decode_result
from tests.support.answer_log import answer
from tests.support.memory_kafka import MemoryCluster, MemoryTimings
from tests.support.turned_loop import TurnedClock, run_turned

RESULTS = "results"
GROUP = "readers"
LOOK_BACK = 8
LIMIT_S = 30.0
Make = Callable[..., GroupReader]
Place = tuple[int, int]
"""A results partition and a position in it."""


@dataclass(frozen=True)
class Plan:
    """What happens in a run. Times in seconds of turned time. Without ``harm`` members only join and leave."""

    partitions: int = 2
    batches: int = 20
    members: int = 2
    changes: int = 6
    harm: bool = True
    ahead: bool = False
    """Whether members read on while they process what they have."""
    grows: bool = False
    latest: bool = False
    commit_errors: float = 0.05
    seconds: float = 12.0


@dataclass
class Verdict:
    """``seen`` counts answers that were processed, ``repeats`` those that were so more than once."""

    seen: int = 0
    repeats: int = 0
    wrong: list[str] = field(default_factory=list)


class Member:
    """A process of the group: how it is doing, and the task that reads."""

    def __init__(self, name: str, reader: GroupReader) -> None:
        self.name = name
        self.reader = reader
        self.frozen_once = False
        self.leave = asyncio.Event()
        self.last: dict[tuple[int, int], int] = {}
        self.task: asyncio.Task[None] | None = None


class GroupSimulation:
    def __init__(self, seed: int, plan: Plan, make: Make = GroupReader) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        self.make = make
        self.clock = TurnedClock()
        self.troubled = True
        self.verdict = Verdict()
        self.members: dict[str, Member] = {}
        self.processed: dict[Place, int] = {}
        self.marked: set[Place] = set()
        self.kept: dict[int, int] = {}
        self.begun: dict[int, int] = {}
        self.offsets: dict[int, list[int]] = {}
        self.answers: dict[int, list[Outgoing]] = {}
        self.zombies: dict[int, list[Outgoing]] = {}
        self.oracle: dict[int, tuple[PartitionReader, dict[int, Hole | None], list[Record]]] = {}

    async def run(self) -> Verdict:
        timings = MemoryTimings(session_timeout_s=3.0, heartbeat_interval_s=0.3, rebalance_timeout_s=6.0)
        self.cluster = MemoryCluster(self.clock, self.rng, self, timings)
        self.cluster.create_topic(TopicSpec(name=RESULTS, partitions=self.plan.partitions))
        for _ in range(4):
            self.append()
        names = [f"m{number}" for number in range(self.plan.members)]
        for name in names:
            self.join(name)
        writing = asyncio.create_task(self.write())
        for _ in range(self.plan.changes):
            await self.clock.sleep(self.rng.uniform(0.05, self.plan.seconds / self.plan.changes))
            await self.change(self.rng.choice(names))
        await writing
        self.troubled = False
        for name in names:
            self.cluster.node(name).thaw()
            self.join(name)
        limit = self.clock.monotonic() + LIMIT_S
        while self.missing() and self.clock.monotonic() < limit:
            await self.clock.sleep(0.5)
        for name in names:
            await self.leave(name)
        self.judge_end()
        await self.cluster.close()
        return self.verdict

    # The world.

    async def point(self, member: str, name: str) -> None:
        """Every call of every member passes here before and after its effect."""
        if name == "commit.after":
            self.judge_commits()
        if not self.troubled:
            await asyncio.sleep(0)
            return
        dice = self.rng.random()
        if dice < 0.4:
            await self.clock.sleep(self.rng.uniform(0, 0.1))
        elif self.plan.harm and dice > 0.995:
            await self.clock.sleep(self.rng.uniform(0, 5.0))
        elif self.plan.harm and name.startswith("commit.") and dice > 0.995 - self.plan.commit_errors:
            raise BrokerUnavailableError(f"told to fail at {name}")

    async def write(self) -> None:
        grow_at = self.rng.randrange(self.plan.batches) if self.plan.grows else -1
        for number in range(self.plan.batches):
            await self.clock.sleep(self.rng.expovariate(self.plan.batches / self.plan.seconds))
            if number == grow_at:
                await self.cluster.admin().add_partitions(RESULTS, self.partitions + 1)
                if 0 in self.kept:
                    self.begun[self.partitions - 1] = 0
            self.append()

    def append(self) -> None:
        """Answers in order, now and then behind a hole, and then again as a zombie writes them.

        Some zombies answer all of a partition again, a few batches at a time, farther behind than any look-back.
        """
        partition = self.rng.randrange(self.partitions)
        log = self.cluster.log(TopicPartition(RESULTS, partition))
        before = self.offsets.setdefault(partition, [-1])
        batch: list[Outgoing] = []
        for _ in range(self.rng.choice((1, 2, 4, 6))):
            offset = before[-1] + 1
            if self.rng.random() < 0.05:
                before.append(offset)  # never answered
                offset += 1
            batch.append(answer(offset, before[-1]))
            before.append(offset)
        log.append_batch(batch, self.clock.now_ms())
        answers = self.answers.setdefault(partition, [])
        answers += batch
        if self.rng.random() < 0.2:
            log.append_batch(batch[self.rng.randrange(len(batch)) :], self.clock.now_ms())
        # What is in front of a group's beginning it never saw, so nobody says that it comes again.
        if partition in self.begun and self.rng.random() < 0.2:
            self.zombies.setdefault(partition, answers[:])
        if zombie := self.zombies.pop(partition, []):
            few = LOOK_BACK + self.rng.randrange(LOOK_BACK)
            log.append_batch(zombie[:few], self.clock.now_ms())
            self.zombies |= {partition: zombie[few:]} if zombie[few:] else {}
        if self.rng.random() < 0.1:
            self.cluster.log(TopicPartition(RESULTS, partition)).add_gap()

    @property
    def partitions(self) -> int:
        return len(self.cluster.partition_numbers(RESULTS))

    def join(self, name: str) -> None:
        if name in self.members:
            return
        node = self.cluster.node(name)
        reader = self.make(
            node.consumer(group=GROUP),
            node.consumer(),
            RESULTS,
            from_="latest" if self.plan.latest else "beginning",
            look_back=LOOK_BACK,
            clock=self.clock,
        )
        member = self.members[name] = Member(name, reader)
        member.task = asyncio.create_task(self.ahead(member) if self.plan.ahead else self.in_turn(member))

    async def leave(self, name: str) -> None:
        """An orderly end."""
        if (member := self.members.pop(name, None)) is not None:
            member.leave.set()
            await member.task

    async def change(self, name: str) -> None:
        if name not in self.members:
            self.join(name)
        elif not self.plan.harm or self.rng.random() < 0.3:
            await self.leave(name)
        elif self.rng.random() < 0.5:
            member = self.members.pop(name)
            self.cluster.node(name).kill()
            member.task.cancel()
            await asyncio.wait([member.task])
        else:
            self.members[name].frozen_once = True
            self.cluster.node(name).freeze()
            await self.clock.sleep(self.rng.uniform(0, 8.0))
            self.cluster.node(name).thaw()

    # What members do.

    async def in_turn(self, member: Member) -> None:
        await member.reader.start()
        while not member.leave.is_set():
            for one in await self.read(member):
                await self.process(member, one)
            await self.commit(member)
        await member.reader.stop()

    async def ahead(self, member: Member) -> None:
        waiting: deque[Answer] = deque()
        await member.reader.start()
        reading = asyncio.create_task(self.read_into(member, waiting))
        try:
            while not member.leave.is_set():
                if waiting:
                    await self.process(member, waiting.popleft())
                else:
                    await self.clock.sleep(0.05)
                await self.commit(member)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        await member.reader.stop()

    async def read_into(self, member: Member, waiting: deque[Answer]) -> None:
        while True:
            waiting += await self.read(member)

    async def read(self, member: Member) -> list[Answer]:
        # Never two that end at the same moment: the turned loop would stand still between them.
        answers = await member.reader.read(timeout_s=self.rng.uniform(0.2, 0.4))
        for one in answers:
            self.judge_handed(member, one)
        return answers

    async def process(self, member: Member, one: Answer) -> None:
        place = (one.partition, one.position)
        if not member.reader.owns(one):
            return
        if place in self.marked and not self.plan.harm:
            self.verdict.wrong.append(f"{place} was processed again though nobody came to harm")
        await self.clock.sleep(self.rng.uniform(0, 0.1))
        await self.cluster.node(member.name).gate()
        self.processed[place] = self.processed.get(place, 0) + 1
        if not self.plan.ahead or member.reader.owns(one):
            self.marked.add(place)
        member.reader.mark(one)

    async def commit(self, member: Member) -> None:
        if self.rng.random() < 0.3:
            try:
                await member.reader.commit()
            except KafkaError as error:
                if not error.retriable:
                    raise

    # The judge.

    def accepted(self, partition: int) -> dict[int, Hole | None]:
        """What a reader from the beginning accepts: position to the hole in front of it."""
        reader, found, read = self.oracle.setdefault(partition, (PartitionReader(), {}, []))
        for record in self.cluster.log(TopicPartition(RESULTS, partition)).records[len(read) :]:
            result = decode_result(record.value)
            reading = reader.read(result.offset, result.after)
            read.append(record)
            if reading.accepted:
                found[record.offset] = reading.hole
        return found

    def judge_handed(self, member: Member, one: Answer) -> None:
        place, wrong = (one.partition, one.position), self.verdict.wrong
        self.begun.setdefault(one.partition, one.position)
        accepted = self.accepted(one.partition)
        if one.position not in accepted:
            wrong.append(f"{member.name} was handed {place}, a repeat")
        elif one.hole != accepted[one.position]:
            wrong.append(f"{member.name} was told {one.hole} before {place}, not {accepted[one.position]}")
        turn = (one.partition, one.assignment)
        if one.position <= member.last.get(turn, -1):
            wrong.append(f"{member.name} was handed {place} behind {member.last[turn]}")
        member.last[turn] = one.position
        if not member.frozen_once and one.position < self.kept.get(one.partition, 0):
            wrong.append(f"{member.name} was handed {place}, which the group had committed")

    def judge_commits(self) -> None:
        for name, kept in self.cluster.committed(GROUP).items():
            before = self.kept.get(name.partition)
            if before is None:
                begun = self.begun.setdefault(name.partition, kept)
                if kept > begun:
                    self.verdict.wrong.append(f"{name} began at {kept}, not at {begun}")
            elif kept < before:
                self.verdict.wrong.append(f"the commit of {name} went back from {before} to {kept}")
            else:
                self.verdict.wrong += [
                    f"{kept} of {name} was committed, and {position} not processed"
                    for position in self.accepted(name.partition)
                    if before <= position < kept and (name.partition, position) not in self.processed
                ]
            self.kept[name.partition] = kept

    def missing(self) -> list[Place]:
        return [
            (partition, position)
            for partition in range(self.partitions)
            for position in self.accepted(partition)
            if position >= self.begun.get(partition, 0) and (partition, position) not in self.processed
        ]

    def judge_end(self) -> None:
        self.verdict.wrong += [f"nobody processed {place}" for place in self.missing()]
        self.verdict.wrong += [f"a callback raised {error!r}" for error in self.cluster.callback_errors]
        self.verdict.seen = len(self.processed)
        self.verdict.repeats = sum(times > 1 for times in self.processed.values())


def simulate_group(seed: int, plan: Plan, make: Make = GroupReader) -> Verdict:
    """One run, in turned time."""
    return run_turned(GroupSimulation(seed, plan, make).run())
