"""What the embedded broker can't do, in one table: every contract test that needs it is expected to fail there.

The marks are strict: when a later version of the broker can do one of these, its tests fail until the row is gone.
"""

from __future__ import annotations

STATIC_MEMBERS = "static members"
SEEN_BY_WAITING = frozenset({STATIC_MEMBERS})
"""Limits that only show after rebalances, a minute in all: whether they are still there is looked at by slow tests."""

EMBEDDED_LIMITS: dict[str, str] = {
    "LogAppendTime": "message.timestamp.type is accepted and not applied, so a record keeps its sender's time",
    "OffsetOutOfRange": "a fetch beyond the end gives nothing instead of an error",
    "add_partitions": "it has no CreatePartitions request",
    "alter_config": "it has no AlterConfigs request",
    "commit metadata": "a text committed with an offset is accepted and read back as an empty one",
    "delete_records": "it has no DeleteRecords request",
    "exact offsets by time": "ListOffsets finds the first record of a batch, not the record inside it",
    "group assignments": "its description of a group has the members without their assignments",
    "group_offsets": "its OffsetFetch reply for a whole group can't be decoded",
    "idempotent producer": "it refuses InitProducerId",
    "max.message.bytes": "the topic's limit is accepted and not applied",
    STATIC_MEMBERS: "at every rebalance it forgets them and evicts them again and again",
}
