"""Groups and rights as the brokers describe them, by versions of two requests that aiokafka does not have.

With Metadata 8 and DescribeGroups 3 a broker says what the user who asks may do (KIP-430). aiokafka reads the answer of
the latter by an older schema, which fails with more than one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.admin import (
    DescribeGroupsRequest_v0,
    DescribeGroupsRequest_v1,
    DescribeGroupsRequest_v2,
    DescribeGroupsResponse_v3,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from headrace.kafka.interface import GroupMember, GroupState, TopicPartition

OPERATIONS = {
    3: "Read",
    4: "Write",
    5: "Create",
    6: "Delete",
    7: "Alter",
    8: "Describe",
    10: "DescribeConfigs",
    11: "AlterConfigs",
}
"""Kafka's AclOperation by its number, which is the bit in an answer."""


class _DescribeGroupsV3(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


_GroupStructs = DescribeGroupsRequest_v0 | DescribeGroupsRequest_v1 | DescribeGroupsRequest_v2 | _DescribeGroupsV3


class DescribeGroup(Request[_GroupStructs]):  # type: ignore[misc]
    """One group, with the rights on it where the broker tells them."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class.API_VERSION < 3:
            return request_struct_class([self._group])
        return request_struct_class([self._group], True)


class _MetadataAnswerV8(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataV8(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataAnswerV8
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class DescribeRights(Request[_MetadataV8]):  # type: ignore[misc]
    """What this user may do on topics. A broker without this version makes ``prepare`` raise NotImplementedError."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._topics, False, False, True)


def operations_of(bits: int) -> frozenset[str] | None:
    """The operations of an answer, in Kafka's words; None where the broker did not tell them (a negative number)."""
    if bits < 0:
        return None
    return frozenset(word for number, word in OPERATIONS.items() if bits & (1 << number))


def group_state(described: Any) -> GroupState:
    """A group of an answer to :class:`DescribeGroup`."""
    _, name, state, _, _, members, *_ = described
    return GroupState(
        name=name,
        state=state,
        members=tuple(
            GroupMember(id=member, client=client, host=host.lstrip("/"), partitions=_partitions(assigned))
            for member, client, host, _, assigned in members
        ),
    )


def _partitions(assigned: bytes | None) -> tuple[TopicPartition, ...]:
    """The partitions of a member; none where they are not (yet) in the format of a consumer."""
    if not assigned:
        return ()
    try:
        return tuple(
            TopicPartition(one.topic, one.partition)
            for one in ConsumerProtocolMemberAssignment.decode(assigned).partitions()
        )
    except (ValueError, TypeError):  # another protocol's bytes
        return ()
