"""How headrace stands, read from Kafka alone: groups, offsets, time stamps, and records on the log.

Nothing is written. Each part is read within a time limit and fails by itself: a user without the right to see a part,
or a broker that does not answer for it, leaves that part unknown, with the reason. Lag is what the answer log says, the
requests behind the last answer, and its seconds are the age of the oldest of them; what groups commit is not asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

import msgspec

from headrace.client.dead_letters import read_dead_letters
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.kafka.interface import (
    Admin,
    Cluster,
    Consumer,
    KafkaError,
    TopicPartition,
    UnknownTopicError,
    connected,
)
from headrace.kafka.range_reader import read_ranges
from headrace.registry.compacted_topics import ModelsLog, TeachingLog, WorkersLog
from headrace.sight.findings import Finding, findings_of
from headrace.sight.processes import Process, ask
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import ClassifyResult, LabellerState, Training
from headrace_schemas.topics import TopicNames

T = TypeVar("T")

LIMIT_S = 10.0
RATE_S = 60
"""Rates are those of so many seconds."""
LAST_ANSWERS = 16
"""Of each results partition so many records are read; the highest counts, as an answer may be given twice."""
LOOKED_AT = 64
"""Of so many partitions, those with the most lag, the oldest request is read."""
MARKERS = 64
"""Offsets behind the last answer in which the oldest waiting request is looked for: some may be markers."""
LAST_LETTERS = 20
HOUR_MS = 3_600_000


class GroupMember(msgspec.Struct, frozen=True):
    """A member of a group; ``partitions`` is how many of the group's own topic it has, None where it is not told."""

    host: str
    partitions: int | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group by its ``role``: workers, trainer, labeller or gateway. ``state`` is in Kafka's words."""

    role: str
    name: str
    state: str
    members: tuple[GroupMember, ...] = ()


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """A requests partition: ``lag`` requests behind the last answer, and the age of the oldest in seconds.

    ``lag_s`` is None where it is not known. ``answered_ms`` is when its last answer was written.
    """

    partition: int
    lag: int
    lag_s: float | None = None
    answered_ms: int | None = None


class Running(msgspec.Struct, frozen=True):
    """A version by which requests were answered: the last answers of so many partitions, and when the last was."""

    version: str
    partitions: int
    answered_ms: int


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """An alias of the model. ``recorded``: there is a record of the version that it points at."""

    alias: str
    version: str
    moved_ms: int
    pinned: bool = False
    recorded: bool = True


class Letter(msgspec.Struct, frozen=True):
    """A dead letter: when, by which error, and the place of its record."""

    at_ms: int
    error: str
    message: str
    origin: str


class Letters(msgspec.Struct, frozen=True):
    """Dead letters: how many came in the last hour, and the last ones by their error, the last one last."""

    last_hour: int
    by_error: dict[str, int]
    last: tuple[Letter, ...]


class LastTraining(msgspec.Struct, frozen=True, kw_only=True):
    """The model's last training: running, done or failed."""

    state: str
    begun_ms: int
    ended_ms: int | None = None
    version: str | None = None
    error: str | None = None


class Labeller(msgspec.Struct, frozen=True):
    """A labeller, and whether its teacher is asked."""

    teacher: str
    stopped: bool
    reason: str | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What `headrace status --json` prints. Times are milliseconds since the Unix epoch, rates records a second.

    ``away`` says why Kafka does not answer, and then nothing else is known; ``unknown`` has the parts that could not be
    read, with why. ``lag`` is requests without an answer, ``lag_s`` the age of the oldest in seconds. ``missing`` are
    topics that are not there, ``unanswerable`` how many partitions the results topic lacks.
    """

    at_ms: int
    bootstrap: str
    model: str
    followed: str
    away: str | None = None
    brokers: int | None = None
    groups: tuple[Group, ...] = ()
    partitions: tuple[PartitionLag, ...] = ()
    lag: int | None = None
    lag_s: float | None = None
    requests_s: float | None = None
    answers_s: float | None = None
    aliases: tuple[Alias, ...] = ()
    running: tuple[Running, ...] = ()
    training: LastTraining | None = None
    labellers: tuple[Labeller, ...] = ()
    letters: Letters | None = None
    processes: tuple[Process, ...] = ()
    missing: tuple[str, ...] = ()
    unanswerable: int = 0
    unknown: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()


class _Logs(msgspec.Struct, frozen=True):
    """Requests and results: their partitions, and what waits."""

    partitions: tuple[PartitionLag, ...]
    running: tuple[Running, ...]
    unanswerable: int
    requests_s: float
    answers_s: float


class _Records(msgspec.Struct, frozen=True):
    """What lies on the models topic of one model."""

    aliases: tuple[Alias, ...]
    training: LastTraining | None


async def look(
    cluster: Cluster, settings: Settings, clock: Clock, *, limit_s: float = LIMIT_S, processes: Sequence[str] = ()
) -> Status:
    """Read all parts, at the same time, and say what looks wrong. It takes some three times ``limit_s`` at most.

    ``processes`` are the addresses (host:port) of admin ports to ask too.

    Raises nothing that Kafka does: what it refuses stands in the status.
    """
    names = settings.topics.names()
    at_ms = clock.now_ms()
    unknown: dict[str, str] = {}

    async def part(name: str, work: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except (KafkaError, WireError) as error:
            unknown[name] = str(error) or type(error).__name__
        except TimeoutError:
            unknown[name] = f"no answer within {limit_s:g} s"
        return None

    begun = Status(
        at_ms=at_ms,
        bootstrap=cluster.bootstrap,
        model=settings.worker.model_name,
        followed=settings.worker.model,
    )
    brokers = await part("brokers", _with_admin(cluster, lambda admin: admin.broker_count()))
    if brokers is None:
        away = unknown["brokers"] if "no answer within" not in unknown["brokers"] else None
        begun = msgspec.structs.replace(begun, away=away or await _why_away(cluster, unknown["brokers"]))
        return msgspec.structs.replace(begun, findings=findings_of(begun))
    said = await asyncio.gather(*map(ask, processes))
    groups, there, logs, records, labellers, letters = await asyncio.gather(
        part("groups", _with_admin(cluster, lambda admin: _groups(admin, settings, names))),
        part("topics", _with_admin(cluster, lambda admin: admin.describe_topics(msgspec.structs.astuple(names)))),
        part("requests and answers", _logs(cluster, names, at_ms)),
        part("versions", _records(cluster, names.models, settings.worker.model_name)),
        part("labellers", _labellers(cluster, names.teaching)),
        part("dead letters", _letters(cluster, names.dead_letters, at_ms)),
    )
    needed = {names.requests, names.results, names.dead_letters, names.models, names.workers}
    missing = () if there is None else tuple(sorted(needed - there.keys()))
    if missing:
        # The topics that are missing say all of it.
        for name in ("requests and answers", "versions", "dead letters"):
            unknown.pop(name, None)
    if there is not None and names.teaching not in there:
        unknown.pop("labellers", None)
    lagging = () if logs is None else logs.partitions
    ages = [one.lag_s for one in lagging if one.lag_s is not None]
    status = msgspec.structs.replace(
        begun,
        brokers=brokers,
        groups=groups or (),
        partitions=lagging,
        lag=None if logs is None else sum(one.lag for one in lagging),
        lag_s=None if logs is None else max(ages, default=0.0),
        requests_s=None if logs is None else logs.requests_s,
        answers_s=None if logs is None else logs.answers_s,
        aliases=() if records is None else records.aliases,
        running=() if logs is None else logs.running,
        training=None if records is None else records.training,
        labellers=labellers or (),
        letters=letters,
        processes=tuple(said),
        missing=missing,
        unanswerable=0 if logs is None else logs.unanswerable,
        unknown=unknown,
    )
    return msgspec.structs.replace(status, findings=findings_of(status))


async def _why_away(cluster: Cluster, otherwise: str) -> str:
    try:
        async with asyncio.timeout(LIMIT_S):
            return await cluster.why_away() or otherwise
    except TimeoutError:
        return otherwise


async def _with_admin(cluster: Cluster, work: Callable[[Admin], Awaitable[T]]) -> T:
    async with connected(cluster.admin()) as admin:
        return await work(admin)


async def _groups(admin: Admin, settings: Settings, names: TopicNames) -> tuple[Group, ...]:
    wanted = (
        ("workers", settings.worker.group, names.requests),
        ("trainer", f"{settings.trainer.group}-election", names.models),
        ("labeller", f"{settings.labeller.group}-election", names.teaching),
        ("gateway", settings.gateway.group, names.results),
    )
    groups = []
    for role, name, topic in wanted:
        state = await admin.describe_group(name)
        # A broker that tells no assignments has told none of any member.
        told = any(member.partitions for member in state.members)
        members = tuple(
            GroupMember(one.host, sum(part.topic == topic for part in one.partitions) if told else None)
            for one in state.members
        )
        groups.append(Group(role=role, name=name, state=state.state, members=members))
    return tuple(groups)


async def _logs(cluster: Cluster, names: TopicNames, at_ms: int) -> _Logs:
    async with (
        connected(cluster.consumer(read_committed=True)) as asked,
        connected(cluster.consumer()) as answered,
        connected(ModelsLog(cluster, names.models)) as models,
        connected(WorkersLog(cluster, names.workers, models)) as workers,
    ):
        there = await asked.partitions_of(names.requests)
        can = await answered.partitions_of(names.results)
        if not there or not can:
            raise UnknownTopicError(f"There are no topics {names.requests} and {names.results}.")
        requests = {number: TopicPartition(names.requests, number) for number in sorted(there)}
        results = {number: TopicPartition(names.results, number) for number in sorted(can & there)}
        begins, ends = await asked.beginning_offsets(requests.values()), await asked.end_offsets(requests.values())
        last = await _last_answers(answered, results)
        next_ = {
            number: max(
                begins[name],
                last[number][1].offset + 1 if number in last else workers.start_of(names.results, number),
            )
            for number, name in requests.items()
        }
        lags = {number: max(0, ends[name] - next_[number]) for number, name in requests.items()}
        oldest = await _oldest(asked, names.requests, next_, {n: ends[name] for n, name in requests.items()}, lags)
        partitions = tuple(_lag_of(number, lags[number], oldest, last.get(number), at_ms) for number in requests)
        return _Logs(
            partitions,
            _running(last),
            len(there - can),
            await _rate(asked, requests.values(), at_ms),
            await _rate(answered, results.values(), at_ms),
        )


async def _last_answers(
    consumer: Consumer, results: Mapping[int, TopicPartition]
) -> dict[int, tuple[int, ClassifyResult]]:
    """By partition the answer with the highest request offset among the last ones, and when it was written."""
    names = list(results.values())
    begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    starts = {name: max(begins[name], ends[name] - LAST_ANSWERS) for name in names}
    last: dict[int, tuple[int, ClassifyResult]] = {}
    async for records in read_ranges(consumer, starts, ends):
        for record in records:
            try:
                result = decode_result(record.value, content_type(record.headers))
            except WireError:  # somebody else's record, of which readers of answers speak
                continue
            before = last.get(record.partition)
            if before is None or result.offset >= before[1].offset:
                last[record.partition] = record.timestamp, result
    return last


async def _oldest(
    consumer: Consumer, topic: str, next_: Mapping[int, int], ends: Mapping[int, int], lags: Mapping[int, int]
) -> dict[int, tuple[int, int]]:
    """By partition the offset and the time stamp of the oldest request that waits."""
    longest = sorted((number for number, lag in lags.items() if lag), key=lambda number: -lags[number])[:LOOKED_AT]
    starts = {TopicPartition(topic, number): next_[number] for number in longest}
    upto = {name: min(ends[name.partition], start + MARKERS) for name, start in starts.items()}
    found: dict[int, tuple[int, int]] = {}
    async for records in read_ranges(consumer, starts, upto):
        for record in records:
            found.setdefault(record.partition, (record.offset, record.timestamp))
    return {
        **{number: (ends[number], 0) for number in longest if lags[number] <= MARKERS},  # markers alone
        **found,
    }


def _lag_of(
    number: int,
    lag: int,
    oldest: Mapping[int, tuple[int, int]],
    last: tuple[int, ClassifyResult] | None,
    at_ms: int,
) -> PartitionLag:
    answered_ms = None if last is None else last[0]
    if not lag or (number in oldest and not oldest[number][1]):
        return PartitionLag(partition=number, lag=0, lag_s=0.0, answered_ms=answered_ms)
    age_s = max(0, at_ms - oldest[number][1]) / 1000 if number in oldest else None
    return PartitionLag(partition=number, lag=lag, lag_s=age_s, answered_ms=answered_ms)


def _running(last: Mapping[int, tuple[int, ClassifyResult]]) -> tuple[Running, ...]:
    counts = Counter(result.version for _, result in last.values())
    times: dict[str, int] = {}
    for at_ms, result in last.values():
        times[result.version] = max(at_ms, times.get(result.version, 0))
    return tuple(Running(version, count, times[version]) for version, count in counts.most_common())


async def _rate(consumer: Consumer, partitions: Collection[TopicPartition], at_ms: int) -> float:
    """Records a second of the last RATE_S seconds, by their time stamps."""
    since = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms - RATE_S * 1000))
    ends = await consumer.end_offsets(partitions)
    return sum(ends[name] - start for name, start in since.items() if start is not None) / RATE_S


async def _records(cluster: Cluster, topic: str, model: str) -> _Records:
    async with connected(ModelsLog(cluster, topic)) as log:
        aliases = tuple(
            Alias(
                alias=one.alias,
                version=one.version,
                moved_ms=one.moved_at_ms,
                pinned=one.pinned,
                recorded=(model, one.version) in log.versions,
            )
            for (name, _), one in sorted(log.aliases.items())
            if name == model
        )
        return _Records(aliases, _last_training(log.trainings.get(model)))


def _last_training(training: Training | None) -> LastTraining | None:
    if training is None:
        return None
    return LastTraining(
        state=training.state.value,
        begun_ms=training.begun_at_ms,
        ended_ms=training.ended_at_ms,
        version=training.version,
        error=training.error,
    )


async def _labellers(cluster: Cluster, topic: str) -> tuple[Labeller, ...]:
    async with connected(TeachingLog(cluster, topic)) as log:
        states: list[LabellerState] = sorted(log.states.values(), key=lambda one: one.labeller)
        return tuple(Labeller(one.teacher, one.stopped, one.reason) for one in states)


async def _letters(cluster: Cluster, topic: str, at_ms: int) -> Letters:
    async with connected(cluster.consumer()) as consumer:
        numbers = await consumer.partitions_of(topic)
        if not numbers:
            raise UnknownTopicError(f"There is no topic {topic}.")
        names = [TopicPartition(topic, number) for number in sorted(numbers)]
        since = await consumer.offsets_for_times(dict.fromkeys(names, at_ms - HOUR_MS))
        ends = await consumer.end_offsets(names)
    last_hour = sum(ends[name] - start for name, start in since.items() if start is not None)
    found = [one async for one in read_dead_letters(cluster, topic, last=LAST_LETTERS)]
    found.sort(key=lambda one: one.timestamp_ms)
    letters = tuple(
        Letter(
            one.timestamp_ms,
            one.letter.error,
            one.letter.message,
            f"{one.letter.topic}/{one.letter.partition}@{one.letter.offset}",
        )
        for one in found[-LAST_LETTERS:]
    )
    return Letters(last_hour, dict(Counter(one.error for one in letters).most_common()), letters)
