"""The admin client over aiokafka, and questions about topics that create none: aiokafka's own let the broker do so."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition as TheirPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupIdNotFound,
    KafkaConnectionError,
    NodeNotReadyError,
    NoError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.errors import KafkaError as TheirKafkaError
from aiokafka.errors import OffsetOutOfRangeError as OffsetOutOfRange
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from headrace.kafka.aio.connection import connect_limit_s, connecting, pace
from headrace.kafka.aio.errors import translated, translating
from headrace.kafka.interface import (
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    TopicPartition,
    TopicSpec,
    TopicState,
)
from headrace.kafka.settings import KafkaSettings, client_options


async def topics_metadata(client: AIOKafkaClient, names: list[str] | None) -> list[dict[str, Any]]:
    """Return the broker's description of the topics named (None: all), those in error included.

    Raises TopicAuthorizationFailedError for topics that the user may not know of.
    """
    response = await send_to_any(client, MetadataRequest(names, allow_auto_topic_creation=False))
    topics: list[dict[str, Any]] = response.to_object()["topics"]
    refused = {topic["topic"] for topic in topics if topic["error_code"] == TopicAuthorizationFailedError.errno}
    if refused:
        raise TopicAuthorizationFailedError(refused)
    return topics


async def partitions_of(client: AIOKafkaClient, topic: str) -> frozenset[int]:
    """Return the partition numbers of ``topic``, empty when there is no such topic."""
    described = [found for found in await topics_metadata(client, [topic]) if found["topic"] == topic]
    return frozenset(partition["partition"] for found in described for partition in found["partitions"])


async def send_to_any(client: AIOKafkaClient, request: Any) -> Any:
    """Send ``request`` to the brokers that are known, in any order, until one answers.

    Raises BrokerUnavailableError when none is known, and what the last one raised when none answers.
    """
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    if not nodes:
        await client.force_metadata_update()
        nodes = [broker.nodeId for broker in client.cluster.brokers()]
    if not nodes:
        raise BrokerUnavailableError(f"No broker is known; is there a Kafka cluster at {client.hosts}?")
    *others, last = random.sample(nodes, len(nodes))
    for node in others:
        with contextlib.suppress(KafkaConnectionError, NodeNotReadyError, RequestTimedOutError):
            return await client.send(node, request)
    return await client.send(last, request)


POLL_S = 0.05
TOPIC_SOURCE = 1  # DYNAMIC_TOPIC_CONFIG in Kafka's DescribeConfigs


class AioAdmin:
    """Fulfils :class:`headrace.kafka.interface.Admin`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._limit_s = settings.request_timeout_ms / 1000
        self._inner = AIOKafkaAdminClient(**client_options(settings))
        pace(self._client)

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
        doing = f"Growing {topic} to {total} partitions"
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
        """Wait until every broker that is asked knows the change: the controller alone does at first."""
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
    """Whether a described setting was set on the topic itself and is no default of the broker's."""
    return bool(entry[3] == TOPIC_SOURCE) if version > 0 else not entry[3]


def _check(
    code: int, doing: str, message: Sequence[str | None], *, needs: str = "Describe", topic: str | None = None
) -> None:
    error = for_code(code)
    if error is not NoError:
        raise translated(error(*[part for part in message if part]), doing, needs=needs, topic=topic)
