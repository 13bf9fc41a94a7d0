from __future__ import annotations

import shlex
import sys

import msgspec
import pytest

from headrace import cli
from headrace.kafka.acls import Names, Role, commands, rights_of
from headrace_schemas.topics import (
    DEAD_LETTERS,
    IDEMPOTENCY,
    KEYS,
    LABELS,
    MACHINE_LABELS,
    MODELS,
    REQUESTS,
    RESULTS,
    REVIEWS,
    TEACHING,
    USAGE,
    WORKERS,
    topics,
)

NAMES = Names(
    requests=REQUESTS,
    results=RESULTS,
    dead_letters=DEAD_LETTERS,
    labels=LABELS,
    models=MODELS,
    workers=WORKERS,
    machine_labels=MACHINE_LABELS,
    reviews=REVIEWS,
    teaching=TEACHING,
    keys=KEYS,
    usage=USAGE,
    idempotency=IDEMPOTENCY,
    worker_group="answering",
    trainer_groups=("training", "training-election"),
    reader_groups=("billing",),
)
# What the topics' own descriptions call them.
CALLED = {
    "producers": Role.PRODUCER,
    "consumers": Role.READER,
    "worker": Role.WORKER,
    "trainer": Role.TRAINER,
    "labellers": Role.LABELLER,
    "labeller": Role.TEACHER,
    "gateway": Role.GATEWAY,
    "operators": Role.OPERATOR,
}


def may(role, operation):
    """The topics on which ``role`` may do ``operation``."""
    return {
        right.name for right in rights_of(role, NAMES) if right.resource == "topic" and operation in right.operations
    }


@pytest.mark.parametrize("topic", topics("", 1), ids=lambda topic: topic.name)
def test_whoever_a_topic_says_writes_or_reads_it_may(topic):
    for called in topic.writers:
        assert called not in CALLED or topic.name in may(CALLED[called], "Write")
    for called in topic.readers:
        assert called not in CALLED or topic.name in may(CALLED[called], "Read")


def test_only_operators_make_topics_and_nobody_deletes_one_or_has_a_right_on_the_cluster():
    for role in Role:
        given = {operation for right in rights_of(role, NAMES) for operation in right.operations}
        assert given <= {"Read", "Write", "Create", "Alter", "DescribeConfigs"}
        assert role is Role.OPERATOR or given <= {"Read", "Write"}
        assert {right.resource for right in rights_of(role, NAMES)} <= {"topic", "group"}


def test_nobody_but_the_trainer_and_the_teacher_reads_labels_and_no_reader_sees_requests():
    assert {role for role in Role if LABELS in may(role, "Read")} == {Role.TRAINER, Role.TEACHER}
    assert may(Role.READER, "Read") == {RESULTS, REVIEWS}
    assert may(Role.PRODUCER, "Read") == set()


def test_no_worker_writes_versions_and_only_workers_and_operators_write_what_workers_go_by():
    assert {role for role in Role if MODELS in may(role, "Write")} == {Role.TRAINER, Role.OPERATOR}
    assert {role for role in Role if WORKERS in may(role, "Write")} == {Role.WORKER, Role.OPERATOR}
    assert MODELS in may(Role.WORKER, "Read")


def test_a_teacher_writes_no_label_of_a_person_and_a_person_none_of_a_machine():
    assert {role for role in Role if LABELS in may(role, "Write")} == {Role.LABELLER, Role.OPERATOR}
    assert {role for role in Role if MACHINE_LABELS in may(role, "Write")} == {Role.TEACHER, Role.OPERATOR}
    assert {role for role in Role if TEACHING in may(role, "Write")} == {Role.TEACHER, Role.OPERATOR}


def test_only_operators_write_api_keys_and_a_gateway_writes_no_version_and_reads_no_label():
    assert {role for role in Role if KEYS in may(role, "Write")} == {Role.OPERATOR}
    assert {role for role in Role if KEYS in may(role, "Read")} == {Role.OPERATOR, Role.GATEWAY}
    assert not may(Role.GATEWAY, "Write") & {MODELS, LABELS, RESULTS}
    assert LABELS not in may(Role.GATEWAY, "Read")


def test_a_reader_without_a_group_gets_no_group():
    alone = rights_of(Role.READER, msgspec.structs.replace(NAMES, reader_groups=()))
    assert {right.resource for right in alone} == {"topic"}


def test_commands_are_kafkas_own_and_safe_for_a_shell():
    lines = commands(
        rights_of(Role.WORKER, NAMES),
        principal="User:CN=worker 1,O=x",
        bootstrap="kafka:9093",
        command_config="admin.properties",
    )
    assert shlex.split(lines[1]) == [
        "kafka-acls.sh",
        *("--bootstrap-server", "kafka:9093", "--command-config", "admin.properties"),
        *("--add", "--allow-principal", "User:CN=worker 1,O=x"),
        *("--operation", "Read", "--operation", "Write", "--topic", "classify.results"),
    ]
    assert shlex.split(lines[-1])[-4:] == ["--operation", "Read", "--group", "answering"]


def printed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["headrace", "topics", "acl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr()


def test_the_command_prints_the_rights_of_the_roles_asked_for_on_the_topics_of_the_settings(monkeypatch, capsys):
    asked = ("--role", "reader", "--role", "labeller", "--prefix", "team.", "--group", "billing")
    code, said = printed(monkeypatch, capsys, *asked, "--bootstrap", "kafka:9093")
    first = "kafka-acls.sh --bootstrap-server kafka:9093 --add --allow-principal"
    assert (code, said.out.splitlines()) == (
        0,
        [
            "# reader",
            f"{first} User:reader --operation Read --topic team.classify.results",
            f"{first} User:reader --operation Read --topic team.classify.reviews",
            f"{first} User:reader --operation Read --group billing",
            "# labeller",
            f"{first} User:labeller --operation Write --topic team.classify.labels",
            f"{first} User:labeller --operation Write --topic team.classify.reviews",
        ],
    )


def test_a_principal_without_its_kind_is_refused(monkeypatch, capsys):
    code, said = printed(monkeypatch, capsys, "--principal", "alice")
    assert code == 2
    assert "User:alice" in said.err
