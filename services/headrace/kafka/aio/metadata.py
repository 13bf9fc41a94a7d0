"""Asking a broker about topics without creating any: aiokafka's own look-ups allow the broker to."""

from __future__ import annotations

import contextlib
import random
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest

from headrace.kafka.errors import BrokerUnavailableError


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
