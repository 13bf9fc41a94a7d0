"""Workers, crashes, zombies and rebalances over the in-memory twin, on a turned clock, judged by the answer log.

One run is one interleaving, chosen by its seed. The judge is the checker of the chaos runs, over what the reader
accepts that users have: it looks at every request that was acknowledged to its producer.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from headrace.core.answer_log import PartitionReader
from headrace.core.poison_pills import DEATHS_ALLOWED
from headrace.core.resume import look_back
from headrace.kafka.interface import (
    BrokerUnavailableError,
    Outgoing,
    Producer,
    ProducerDeadError,
    TopicPartition,
    TopicSpec,
)
from headrace.registry.compacted_topics import ModelsWriter
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.settings import WorkerSettings
from headrace.worker.stages.infer import Model
from headrace.worker.worker import Worker, WorkerTopics
from headrace_schemas.codec import decode_result, encode_request
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest, ModelAlias, ModelVersion, Status
from load.chaos.checker import Checked, check
from tests.support.histories import history_of
from tests.support.memory_kafka import MemoryCluster, MemoryTimings
from tests.support.models import LABELS, SumModel, label_of
from tests.support.turned_loop import TurnedClock, run_turned

TOPICS = WorkerTopics("requests", "results", "dead-letters", "models", "workers")
SETTINGS = WorkerSettings(
    max_batch=4, waiting_per_partition=8, commit_every=0.2, publish_timeout=3.0, revoke_timeout=2.0, drain_timeout=4.0
)
BACKLOG = 80
"""Much more than a resume looks back over."""
GROUP = SETTINGS.group
METRICS = WorkerMetrics(CollectorRegistry())


@dataclass(frozen=True)
class Plan:
    """What happens in a run. Times in seconds of turned time."""

    partitions: int = 2
    requests: int = 40
    workers: int = 2
    faults: int = 6
    static_members: bool = False
    produce_errors: float = 0.03
    gaps: float = 0.05
    reset_commits: bool = False
    reset_after: float = 4.0
    seconds: float = 20.0
    cuts: float = 0.0
    """How many of the faults are a worker that loses the group's coordinator alone."""
    moves: int = 0
    """How often the alias that all workers follow moves; with none they have one version for good."""


@dataclass
class Verdict:
    """What the checker found, and beside it ``wrong``: answers that are not what the model gives, and ``forgotten``:
    positions in the results at which a reader that starts again would not find by the look-back what it had seen.
    """

    checked: Checked
    wrong: list[tuple[int, int]] = field(default_factory=list)
    forgotten: list[tuple[int, int]] = field(default_factory=list)
    condemned: int = 0
    versions: set[str] = field(default_factory=set)
    stuck: str = ""

    @property
    def kept(self) -> bool:
        return self.checked.kept and not (self.wrong or self.forgotten or self.stuck)


MakeWorker = Callable[..., Worker]


class Simulation:
    def __init__(self, seed: int, plan: Plan, make_worker: MakeWorker = Worker) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        self.make_worker = make_worker
        self.clock = TurnedClock()
        self.troubled = True
        self.sent: dict[tuple[int, int], tuple[bytes, str]] = {}
        self.runs: dict[str, asyncio.Task[None]] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.slow: set[str] = set()
        self.starts = 0
        self.deaths = 0
        self.failures: list[BaseException] = []

    async def run(self) -> Verdict:
        timings = MemoryTimings(
            session_timeout_s=3.0, heartbeat_interval_s=0.3, rebalance_timeout_s=5.0, batch_records=3
        )
        self.cluster = MemoryCluster(self.clock, self.rng, self, timings)
        for name in (TOPICS.requests, TOPICS.results, TOPICS.dead_letters):
            self.cluster.create_topic(TopicSpec(name=name, partitions=self.plan.partitions))
        for name in (TOPICS.models, TOPICS.workers):
            self.cluster.create_topic(TopicSpec(name=name, partitions=1))
        names = [f"w{number}" for number in range(self.plan.workers)]
        moving = asyncio.create_task(self.move_alias()) if self.plan.moves else None
        for name in names:
            self.start(name)
        publishing = asyncio.create_task(self.publish())
        for _ in range(self.plan.faults):
            await self.clock.sleep(self.rng.uniform(0.05, self.plan.seconds / max(1, self.plan.faults)))
            await self.trouble(self.rng.choice(names))
        await publishing
        if moving is not None:
            await moving
        self.troubled = False
        for name in names:
            self.cluster.node(name).thaw()
            if name not in self.runs or self.runs[name].done():
                self.start(name)
        verdict = await self.judge()
        for stop in self.stops.values():
            stop.set()
        await asyncio.wait(self.runs.values(), timeout=60)
        for task in self.runs.values():
            task.cancel()
        await asyncio.gather(*self.runs.values(), return_exceptions=True)
        await self.cluster.close()
        return verdict

    # The world.

    async def point(self, member: str, name: str) -> None:
        """Every call of every worker passes here before and after its effect."""
        if member == "local" or not self.troubled:
            return
        dice = self.rng.random()
        if dice < 0.3:
            await self.clock.sleep(self.rng.uniform(0, 0.05))
        elif dice > 0.995:
            await self.clock.sleep(self.rng.uniform(0, 6.0))
        elif name.startswith("produce") and dice > 0.995 - self.plan.produce_errors:
            raise self.rng.choice((BrokerUnavailableError, ProducerDeadError))(f"told to fail at {name}")

    async def publish(self) -> None:
        producer = self.cluster.producer()
        for _ in range(self.plan.requests):
            await self.clock.sleep(self.rng.expovariate(self.plan.requests / self.plan.seconds))
            partition = self.rng.randrange(self.plan.partitions)
            if self.rng.random() < self.plan.gaps:
                self.cluster.log(TopicPartition(TOPICS.requests, partition)).add_gap()
            await self.send(producer, partition, self.rng.choice((1, 1, 2, 6)))

    async def send(self, producer: Producer, partition: int, count: int) -> None:
        for _ in range(count):
            text = f"text {len(self.sent)} {self.rng.random()}"
            value = encode_request(ClassifyRequest(text=text))
            appended = await producer.send(TOPICS.requests, Outgoing(value), partition=partition)
            self.sent[partition, appended.offset] = (value, text)

    def start(self, name: str) -> None:
        self.starts += 1
        node = self.cluster.node(name)
        worker = self.make_worker(
            cluster=node,
            topics=TOPICS,
            settings=SETTINGS,
            shape=RequestShape(),
            model=self.load if self.plan.moves else Model("v1", LABELS, SumModel()),
            clock=self.clock,
            offload=functools.partial(self.offload, name),
            metrics=METRICS,
            process=f"{name}-{self.starts}",
            member=name if self.plan.static_members else None,
        )
        self.stops[name] = asyncio.Event()
        self.runs[name] = asyncio.create_task(self.supervise(name, worker, self.stops[name]))

    async def supervise(self, name: str, worker: Worker, stop: asyncio.Event) -> None:
        try:
            await worker.run(stop)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A process that ends by itself is started again, as a supervisor does; too many are a fault.
            self.failures.append(error)
            if len(self.failures) > 20:
                raise
            self.deaths += 1
            self.cluster.node(name).kill()
            await self.clock.sleep(0.5)
            self.start(name)

    async def move_alias(self) -> None:
        """To and fro between two versions, as fast as a few hundred milliseconds after one another."""
        writer = ModelsWriter(self.cluster.producer(), TOPICS.models)
        both = ("v1", "v2")
        await writer.publish(
            [
                ModelVersion(name="default", version=v, uri=v, sha256="", size=0, labels=LABELS, created_at_ms=1)
                for v in both
            ]
        )
        for number in range(self.plan.moves + 1):
            to, back = both[number % 2], both[(number + 1) % 2]
            await writer.publish(
                [ModelAlias(name="default", alias="champion", version=to, moved_at_ms=1, previous=back)]
            )
            await self.clock.sleep(self.rng.uniform(0.2, 2 * self.plan.seconds / self.plan.moves))

    async def load(self, record: ModelVersion) -> Model:
        await self.clock.sleep(self.rng.uniform(0, 2.0))
        if self.rng.random() < 0.2:
            raise OSError("the store is told to fail")
        return Model(record.version, LABELS, SumModel())

    async def offload(self, name: str, work: Callable[[], object]) -> object:
        done = work()
        await self.clock.sleep(self.rng.uniform(0.2, 0.8) if name in self.slow else self.rng.uniform(0, 0.1))
        return done

    async def trouble(self, name: str) -> None:
        if self.plan.cuts and self.rng.random() < self.plan.cuts:
            await self.cut(name)
            return
        kind = self.rng.choice(("kill", "freeze", "stop", "reset" if self.plan.reset_commits else "kill"))
        if kind == "kill":
            self.kill(name)
            await self.clock.sleep(self.rng.uniform(0, 4.0))
            self.start(name)
        elif kind == "freeze":
            self.deaths += 1
            self.cluster.node(name).freeze()
            await self.clock.sleep(self.rng.uniform(0, 8.0))
            self.cluster.node(name).thaw()
        elif kind == "stop":
            self.stops[name].set()
            await asyncio.wait([self.runs[name]], timeout=10)
            self.kill(name)
            self.start(name)
        else:
            self.reset_commits()

    async def cut(self, name: str) -> None:
        """A worker that is slow and has much to do loses the group's coordinator, and no broker."""
        self.slow.add(name)
        await self.send(self.cluster.producer(), self.rng.randrange(self.plan.partitions), BACKLOG)
        self.cluster.node(name).cut_coordinator()
        await self.clock.sleep(self.rng.uniform(0, 14.0))
        self.cluster.node(name).restore_coordinator()
        self.slow.discard(name)

    def kill(self, name: str) -> None:
        self.deaths += 1
        self.cluster.node(name).kill()
        self.runs[name].cancel()

    def reset_commits(self) -> None:
        """Somebody sets the group's offsets forward by mistake. Before the first answer workers refuse to go on."""
        for number in range(self.plan.partitions):
            name = TopicPartition(TOPICS.requests, number)
            if self.cluster.log(TopicPartition(TOPICS.results, number)).end:
                self.cluster.group(GROUP).offsets[name] = self.cluster.log(name).end

    # The judge.

    def answers(self, partition: int) -> Sequence[tuple[int, object]]:
        records = self.cluster.log(TopicPartition(TOPICS.results, partition)).records
        return [(record.offset, decode_result(record.value)) for record in records]

    async def judge(self) -> Verdict:
        """Wait until every acknowledged request has an answer in the log, with a limit, then read as a user does."""
        for error in self.failures:
            if isinstance(error, TypeError | AttributeError | NameError):
                raise error  # a test's worker that does not fit the real one has broken no rule
        limit = self.clock.monotonic() + 120.0
        while self.missing() and self.clock.monotonic() < limit:
            await self.clock.sleep(1.0)
        history = history_of(
            self.cluster,
            requests=TOPICS.requests,
            results=TOPICS.results,
            partitions=range(self.plan.partitions),
            acknowledged={place: value for place, (value, _) in self.sent.items()},
        )
        verdict = Verdict(check(history))
        if verdict.checked.lost and self.failures:
            verdict.stuck = repr(self.failures[-1])
        for partition in range(self.plan.partitions):
            verdict.forgotten += [(partition, position) for position in self.forgotten(partition)]
            for _, answer in self.accepted(partition):
                verdict.versions.add(answer.version)
                _, text = self.sent.get((partition, answer.offset), (b"", ""))
                right = answer.status is Status.OK and answer.label == label_of(text)
                deaths = self.deaths + self.cluster.group(GROUP).taken_for_dead
                if answer.reason == "kills-process" and deaths > DEATHS_ALLOWED:
                    # Chance ended the process at one record that often, or stalled it past its session; a record that
                    # kills it looks the same.
                    verdict.condemned += 1
                    right = True
                if not right:
                    verdict.wrong.append((partition, answer.offset))
        return verdict

    def forgotten(self, partition: int) -> list[int]:
        """Where the highest of the answers looked back over is not the highest of all before: a reader that starts
        again there would see answers twice, and so would a worker that resumes from there.
        """
        offsets = [answer.offset for _, answer in self.answers(partition)]
        highest = list(itertools.accumulate(offsets, max))
        reach = look_back(SETTINGS.max_batch)
        return [at for at in range(1, len(offsets) + 1) if max(offsets[max(0, at - reach) : at]) < highest[at - 1]]

    def missing(self) -> list[tuple[int, int]]:
        answered = {(p, answer.offset) for p in range(self.plan.partitions) for _, answer in self.accepted(p)}
        return sorted(self.sent.keys() - answered)

    def accepted(self, partition: int) -> list[tuple[int, object]]:
        reader = PartitionReader(-1)
        return [pair for pair in self.answers(partition) if reader.read(pair[1].offset, pair[1].after).accepted]


def simulate(seed: int, plan: Plan, make_worker: MakeWorker = Worker) -> Verdict:
    """One run, in turned time."""
    return run_turned(Simulation(seed, plan, make_worker).run())
