"""The least rights that each role needs on a cluster with ACLs, as data, and as commands of Kafka's own tool.

A right that includes another one is listed alone: in Kafka, Read, Write and Alter include Describe. A user who may
write to one topic may also have an idempotent producer (from Kafka 2.8 on), so nobody needs a right on the cluster
itself.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Sequence
from typing import Literal

import msgspec

from headrace_schemas.topics import TopicNames

READ = "Read"
WRITE = "Write"
CREATE = "Create"
ALTER = "Alter"
DESCRIBE_CONFIGS = "DescribeConfigs"


class Role(enum.StrEnum):
    """What a user of the cluster does there. One user may have several roles: a program that awaits its answers is a
    producer and a reader.
    """

    PRODUCER = "producer"
    WORKER = "worker"
    TRAINER = "trainer"
    READER = "reader"
    LABELLER = "labeller"
    TEACHER = "teacher"
    GATEWAY = "gateway"
    OPERATOR = "operator"


class Names(TopicNames, frozen=True, kw_only=True):
    """Topics and groups by their names on the cluster. ``reader_groups`` are the groups in which readers share work.

    ``holdout`` is the topic of the rows that the gate decides by, where there is one.
    """

    worker_group: str
    trainer_groups: tuple[str, ...]
    teacher_groups: tuple[str, ...] = ()
    gateway_group: str | None = None
    holdout: str | None = None
    reader_groups: tuple[str, ...] = ()


class Right(msgspec.Struct, frozen=True):
    """``operations``, in Kafka's words, on one topic or group of exactly this name."""

    resource: Literal["topic", "group"]
    name: str
    operations: tuple[str, ...]


def rights_of(role: Role, names: Names) -> tuple[Right, ...]:  # noqa: PLR0911 - one a role
    """Return what ``role`` needs, and nothing more."""
    match role:
        case Role.PRODUCER:
            return (_topic(names.requests, WRITE),)
        case Role.WORKER:
            return (
                _topic(names.requests, READ),
                _topic(names.results, READ, WRITE),  # a worker finds its place by the answers that are there
                _topic(names.dead_letters, WRITE),
                _topic(names.models, READ),
                _topic(names.workers, READ, WRITE),  # its claim to the results, and what it is about to try
                _group(names.worker_group),
            )
        case Role.TRAINER:
            return (
                _topic(names.labels, READ),
                _topic(names.machine_labels, READ),
                _topic(names.models, READ, WRITE),
                _topic(names.dead_letters, WRITE),
                _topic(names.results, READ),  # drift
                _topic(names.requests, READ),  # the gate replays the last ones
                *((_topic(names.holdout, READ),) if names.holdout is not None else ()),
                *map(_group, names.trainer_groups),
            )
        case Role.READER:
            return (_topic(names.results, READ), _topic(names.reviews, READ), *map(_group, names.reader_groups))
        case Role.LABELLER:
            return (_topic(names.labels, WRITE), _topic(names.reviews, WRITE))
        case Role.TEACHER:
            return (
                _topic(names.requests, READ),
                _topic(names.results, READ),  # which texts were answered with little margin, or without a label
                _topic(names.labels, READ),  # gold texts, and what a person has labelled already
                _topic(names.models, READ),
                _topic(names.machine_labels, READ, WRITE),
                _topic(names.reviews, READ, WRITE),
                _topic(names.teaching, READ, WRITE),
                *map(_group, names.teacher_groups),
            )
        case Role.GATEWAY:
            # Who labels, erases or moves aliases over HTTP needs the rights of these roles beside it.
            return (
                _topic(names.requests, READ, WRITE),  # whose a request is stands in its headers
                _topic(names.results, READ),
                _topic(names.models, READ),
                _topic(names.reviews, READ, WRITE),
                _topic(names.keys, READ),
                _topic(names.usage, WRITE),
                _topic(names.idempotency, READ, WRITE),
                *((_group(names.gateway_group),) if names.gateway_group is not None else ()),
            )
        case Role.OPERATOR:
            made = (CREATE, DESCRIBE_CONFIGS)
            return (
                # A replayed dead letter is written where it came from, and a mark beside it; comparing reads answers.
                _topic(names.requests, *made, ALTER, READ, WRITE),
                _topic(names.results, *made, ALTER, READ),
                _topic(names.dead_letters, *made, ALTER, READ, WRITE),
                _topic(names.labels, *made, WRITE),  # never grown, so no Alter
                *((_topic(names.holdout, *made, WRITE),) if names.holdout is not None else ()),
                _topic(names.models, *made, READ, WRITE),
                _topic(names.machine_labels, *made, READ, WRITE),  # an erasure looks for the text
                _topic(names.reviews, *made, ALTER, READ),
                _topic(names.teaching, *made, READ, WRITE),
                _topic(names.keys, *made, READ, WRITE),
                _topic(names.usage, *made, READ),
                _topic(names.idempotency, *made, READ),  # `topics apply` describes it
                _topic(names.workers, *made, READ, WRITE),  # `topics apply` copies older claims, `topics claim` raises
            )


def commands(
    rights: Sequence[Right], *, principal: str, bootstrap: str, command_config: str | None = None
) -> list[str]:
    """Return a line of ``kafka-acls.sh`` for each right; ``command_config`` is the file of the admin's own login."""
    login = () if command_config is None else ("--command-config", command_config)
    return [
        shlex.join(
            [
                *("kafka-acls.sh", "--bootstrap-server", bootstrap, *login),
                *("--add", "--allow-principal", principal),
                *(word for operation in right.operations for word in ("--operation", operation)),
                *(f"--{right.resource}", right.name),
            ]
        )
        for right in rights
    ]


def _topic(name: str, *operations: str) -> Right:
    return Right("topic", name, operations)


def _group(name: str) -> Right:
    return Right("group", name, (READ,))
