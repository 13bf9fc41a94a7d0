"""A real Kafka cluster, reached by aiokafka: its clients, among them the admin client, and a filter for its logs.

aiokafka logs an error for everything that it will try again by itself: a broker that is away, a coordinator that is
being chosen, a topic that is being made. Nobody has to act on those lines: ``kafka/reach.py`` logs one line when the
trouble lasts, and an error that no retry mends is raised as well. So they become debug lines. All other lines become
warnings, and repeated ones are held back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from aiokafka import TopicPartition as TheirPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    NoError,
    NotCoordinatorForGroupError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.errors import KafkaError as TheirKafkaError
from aiokafka.errors import OffsetOutOfRangeError as OffsetOutOfRange
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from headrace.core.text import quantity
from headrace.kafka.aio.connection import (
    connect_limit_s,
    connecting,
    make_lasting,
    send_to_any,
    topics_metadata,
    translated,
    translating,
    why_unreachable,
)
from headrace.kafka.aio.consumer import AioConsumer
from headrace.kafka.aio.descriptions import DescribeGroup, DescribeRights, group_state, operations_of
from headrace.kafka.aio.producer import AioProducer
from headrace.kafka.interface import (
    BrokerUnavailableError,
    GroupState,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    Permitted,
    TopicPartition,
    TopicSpec,
    TopicState,
)
from headrace.kafka.settings import KafkaSettings, client_options
from headrace.process.logs import RepeatFilter

POLL_S = 0.05
COORDINATOR_MOVES = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
TOPIC_SOURCE = 1  # DYNAMIC_TOPIC_CONFIG in Kafka's DescribeConfigs


class AioAdmin:
    """Fulfils :class:`headrace.kafka.interface.Admin`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._limit_s = settings.request_timeout_ms / 1000
        self._inner = AIOKafkaAdminClient(**client_options(settings))
        make_lasting(self._client)

    @property
    def _client(self) -> Any:
        return self._inner._client  # noqa: SLF001 - for requests that the admin client does not offer

    async def start(self) -> None:
        async with connecting(self._settings, f"Connecting to Kafka at {self._settings.bootstrap}"):
            try:
                async with asyncio.timeout(connect_limit_s(self._settings)):
                    await self._inner.start()
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        with translating("Closing an admin client"):
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self._inner.close()

    async def broker_count(self) -> int:
        with translating("Asking for the brokers"):
            cluster = await self._inner.describe_cluster()
            return len(cluster["brokers"])

    async def describe_topics(self, names: Collection[str] | None = None) -> dict[str, TopicState]:
        with translating("Describing topics"):
            found = [
                topic
                for topic in await topics_metadata(self._client, None if names is None else sorted(names))
                if topic["error_code"] == 0 and topic["partitions"] and not topic["is_internal"]
            ]
            configs = await self._configs([topic["topic"] for topic in found])
        return {
            topic["topic"]: TopicState(
                name=topic["topic"],
                partitions=len(topic["partitions"]),
                replication=min(len(partition["replicas"]) for partition in topic["partitions"]),
                config=configs.get(topic["topic"], {}),
            )
            for topic in found
        }

    async def create_topic(self, spec: TopicSpec) -> None:
        doing = f"Creating topic {spec.name}"
        new = NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=dict(spec.config))
        with translating(doing, needs="Create", topic=spec.name):
            response = await self._inner.create_topics([new])
        for _, code, *message in response.topic_errors:
            _check(code, doing, message, needs="Create", topic=spec.name)
        await self._wait_for_partitions(spec.name, spec.partitions, doing)

    async def add_partitions(self, topic: str, total: int) -> None:
        doing = f"Growing {topic} to {quantity(total, 'partition')}"
        with translating(doing, needs="Alter", topic=topic):
            await self._inner.create_partitions({topic: NewPartitions(total)})
        await self._wait_for_partitions(topic, total, doing)

    async def alter_config(self, topic: str, config: Mapping[str, str]) -> None:
        """Set ``config`` and keep what else is set on the topic: the request itself replaces everything."""
        doing = f"Setting {', '.join(sorted(config))} of topic {topic}"
        with translating(doing):
            kept = await self._configs([topic], set_on_topic=True)
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=kept.get(topic, {}) | dict(config))
            responses = await self._inner.alter_configs([resource])
        for response in responses:
            for code, *message in response.resources:
                _check(code, doing, message[:1], needs="AlterConfigs", topic=topic)

    async def delete_topic(self, topic: str) -> None:
        doing = f"Deleting topic {topic}"
        with translating(doing):
            response = await self._inner.delete_topics([topic])
        for _, code, *message in response.topic_error_codes:
            _check(code, doing, message, needs="Delete", topic=topic)
        await self._wait_for_partitions(topic, 0, doing)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        topics = sorted({name.topic for name in before})
        wanted = {TheirPartition(*name): RecordsToDelete(offset) for name, offset in before.items()}
        with translating(
            f"Deleting records of {', '.join(topics)}", needs="Delete", topic=topics[0] if topics else None
        ):
            try:
                await self._inner.delete_records(wanted)
            except OffsetOutOfRange as error:
                raise OffsetOutOfRangeError(
                    {(name.topic, name.partition): offset for name, offset in before.items()}
                ) from error

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        doing = f"Asking what group {group} committed"
        with translating(doing):
            try:
                coordinator = await self._inner.find_coordinator(group)
                response = await self._client.send(coordinator, OffsetFetchRequest(group, None))
            except GroupIdNotFound:
                return {}
        _check(response.error_code, doing, [])
        offsets: dict[TopicPartition, int] = {}
        for topic, partitions in response.topics:
            for partition, offset, _, code in partitions:
                _check(code, doing, [])
                if offset >= 0:
                    offsets[TopicPartition(topic, partition)] = offset
        return offsets

    async def describe_group(self, group: str) -> GroupState:
        doing = f"Describing group {group}"
        code, described = await self._group(group, doing)
        if for_code(code) is GroupIdNotFound:
            return GroupState(name=group, state="Dead")
        _check(code, doing, [])
        return group_state(described)

    async def permitted(self, topics: Collection[str], groups: Collection[str]) -> Permitted:
        return Permitted(
            await self._topic_rights(sorted(topics)),
            {group: await self._group_rights(group) for group in sorted(groups)},
        )

    async def _group(self, group: str, doing: str) -> tuple[int, Any]:
        with translating(doing):
            async with asyncio.timeout(self._limit_s):
                while True:
                    try:
                        coordinator = await self._inner.find_coordinator(group)
                        described = (await self._client.send(coordinator, DescribeGroup(group))).groups[0]
                    except GroupCoordinatorNotAvailableError:  # it is being chosen, as at the first use of a cluster
                        described = None
                    if described is not None and for_code(described[0]) not in COORDINATOR_MOVES:
                        return described[0], described
                    await asyncio.sleep(POLL_S)

    async def _group_rights(self, group: str) -> frozenset[str] | None:
        try:
            code, described = await self._group(group, f"Asking for the rights on group {group}")
        except NotAuthorizedError:
            return frozenset()
        if for_code(code) is GroupAuthorizationFailedError:
            return frozenset()
        # Six fields, and the rights behind them where the broker has that version.
        return operations_of(described[6]) if len(described) > 6 else None

    async def _topic_rights(self, topics: list[str]) -> dict[str, frozenset[str] | None]:
        with translating("Asking for the rights on topics"):
            try:
                response = await send_to_any(self._client, DescribeRights(topics))
            except NotImplementedError:  # a broker that has no such version
                return dict.fromkeys(topics)
        rights: dict[str, frozenset[str] | None] = dict.fromkeys(topics)
        for topic in response.to_object()["topics"]:
            refused = for_code(topic["error_code"]) is TopicAuthorizationFailedError
            rights[topic["topic"]] = frozenset() if refused else operations_of(topic["authorized_operations"])
        return rights

    async def _configs(self, topics: list[str], *, set_on_topic: bool = False) -> dict[str, dict[str, str]]:
        if not topics:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        configs: dict[str, dict[str, str]] = {}
        for response in await self._inner.describe_configs(resources):
            for code, message, _, name, entries in response.resources:
                _check(code, f"Describing topic {name}", [message], needs="DescribeConfigs", topic=name)
                configs[name] = {
                    entry[0]: entry[1]
                    for entry in entries
                    if entry[1] is not None and (not set_on_topic or _set_on_topic(entry, response.API_VERSION))
                }
        return configs

    async def _wait_for_partitions(self, topic: str, count: int, doing: str) -> None:
        """Wait until every broker knows the change. At first only the controller does."""
        try:
            async with asyncio.timeout(self._limit_s):
                while not await self._all_brokers_see(topic, count):  # noqa: ASYNC110 - brokers offer nothing to await
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise BrokerUnavailableError(f"{doing} was accepted, but is not seen after {self._limit_s:g} s.") from error

    async def _all_brokers_see(self, topic: str, count: int) -> bool:
        try:
            brokers = (await send_to_any(self._client, MetadataRequest([], allow_auto_topic_creation=False))).brokers
            for node, *_ in brokers:
                request = MetadataRequest([topic], allow_auto_topic_creation=False)
                described = (await self._client.send(node, request)).to_object()["topics"]
                led = [p for found in described for p in found["partitions"] if p["leader"] >= 0]
                if len(led) != count:
                    return False
        except (BrokerUnavailableError, TheirKafkaError):
            return False
        return True


def _set_on_topic(entry: tuple[Any, ...], version: int) -> bool:
    """Whether a described setting was set on the topic itself, rather than being a default of the broker."""
    return bool(entry[3] == TOPIC_SOURCE) if version > 0 else not entry[3]


def _check(
    code: int, doing: str, message: Sequence[str | None], *, needs: str = "Describe", topic: str | None = None
) -> None:
    error = for_code(code)
    if error is not NoError:
        raise translated(error(*[part for part in message if part]), doing, needs=needs, topic=topic)


# How these messages begin. In aiokafka 0.14 each of them is followed by another try, or by the same news as an error.
TRIED_AGAIN = (
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
    "No broker metadata found",
    "Topic %s is not available during auto-create",
    "Topic %s not found in cluster metadata",
    "Error fetching metadata for topic",
    "Error sending %s to node",
    "LeaveGroup request failed",
    "OffsetCommit failed",
    "OffsetFetchRequest -- unknown topic",
    "Failed to commit on finallization",
    "Marking the coordinator dead",
    "Group Coordinator Request failed",
    "FindCoordinator Request failed",
    "Heartbeat ",
    "Failed fetch ",
    "Unexpected error while fetching data",
    "Received unknown topic or partition error",
    "Attempt to fetch offsets for partition",
    "Cannot send %r to",
    "Could not send %r",
    "Got error produce response",
)


class _Calm(RepeatFilter):
    """Turns messages about retries into debug messages, and holds back others that repeat."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info or not str(record.msg).startswith(TRIED_AGAIN):
            return super().filter(record)
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


@contextmanager
def calmed() -> Iterator[None]:
    """Filter what aiokafka logs while the block runs, for this process. May be entered several times at once."""
    calm = _Calm()
    # A logger's filter does not see what the loggers below it log.
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "aiokafka"]
    loggers = [logging.getLogger(name) for name in ("aiokafka", *names)]
    for logger in loggers:
        logger.addFilter(calm)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(calm)


class AioKafkaCluster:
    """Fulfils :class:`headrace.kafka.interface.Cluster`. Clients are made inside a running event loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    @property
    def bootstrap(self) -> str:
        return self.settings.bootstrap

    @property
    def batch_bytes(self) -> int:
        return self.settings.max_batch_bytes

    async def why_away(self) -> str | None:
        reason = await why_unreachable(self.settings)
        return None if reason is None else str(reason)

    def calmed(self) -> AbstractContextManager[None]:
        return calmed()

    def consumer(
        self,
        *,
        group: str | None = None,
        member: str | None = None,
        read_committed: bool = False,
        in_columns: bool = False,
    ) -> AioConsumer:
        return AioConsumer(
            self.settings, group=group, member=member, read_committed=read_committed, in_columns=in_columns
        )

    def producer(self) -> AioProducer:
        return AioProducer(self.settings)

    def admin(self) -> AioAdmin:
        return AioAdmin(self.settings)
