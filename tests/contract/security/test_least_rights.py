"""The real programs on Apache Kafka, each role a user of its own with exactly the rights that `topics acl` prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.client.labels import Labelled, publish_labels
from headrace.kafka.acls import Right
from headrace.kafka.aio import AioKafkaCluster
from headrace.model.artifact import save
from headrace_load.processes import headrace, running
from headrace_schemas.headers import CONTENT_TYPE, JSON
from headrace_schemas.records import Status
from tests.contract.security.guarded import Guarded, allow, passwords
from tests.support.networks import random_artifact
from tests.support.waiting import until, within

pytestmark = pytest.mark.apache

LIMIT_S = 90.0
PREFIX = "least."
GROUP = "billing"
TEXTS = 20

CONFIG = """
[kafka]
bootstrap = "{bootstrap}"
security_protocol = "SASL_SSL"
ssl_cafile = "{authority}"
sasl_mechanism = "SCRAM-SHA-512"

[topics]
prefix = "{prefix}"
partitions = 2

[worker]
group = "least-workers"

[trainer]
group = "least-trainer"
store = "{store}"

[admin]
port = 0
"""


def granted(printed: str) -> dict[str, list[Right]]:
    """What `headrace topics acl --json` printed, by user."""
    rights: dict[str, list[Right]] = {}
    for line in printed.splitlines():
        right = json.loads(line)
        kind, _, user = right["principal"].partition(":")
        assert kind == "User"
        rights.setdefault(user, []).append(Right(right["resource"], right["name"], tuple(right["operations"])))
    return rights


def as_user(role: str) -> dict[str, str]:
    return {"HEADRACE_KAFKA__SASL_USERNAME": role, "HEADRACE_KAFKA__SASL_PASSWORD": passwords()[role]}


async def logged(log: Path, pattern: str) -> re.Match[str]:
    return await until(lambda: re.search(pattern, log.read_text()) if log.exists() else None, LIMIT_S)


async def test_every_role_does_its_work_with_the_rights_that_are_printed_and_no_others(
    guarded: Guarded, tmp_path: Path
):
    config, model = tmp_path / "headrace.toml", tmp_path / "model.safetensors"
    config.write_text(
        CONFIG.format(bootstrap=guarded.login, authority=guarded.authority, prefix=PREFIX, store=tmp_path / "store")
    )
    save(random_artifact(3), str(model))
    command = ("--config", str(config))
    printed = await headrace(*command, "topics", "acl", "--json", "--group", GROUP, environment=as_user("operator"))
    await allow(guarded, granted(printed))
    await headrace(*command, "topics", "apply", environment=as_user("operator"))

    worker_log, trainer_log = tmp_path / "worker.log", tmp_path / "trainer.log"
    async with (
        running(*command, "worker", "--model", str(model), log=worker_log, environment=as_user("worker")),
        running(*command, "trainer", log=trainer_log, environment=as_user("trainer")),
    ):
        await publish(guarded)
        good, bad = await read_alone(guarded)
        assert (good, bad) == (TEXTS, 1)
        await read_in_a_group(guarded)

        labels = [Labelled("1", "a good film", "good"), Labelled("2", "a bad film", "bad")]
        await publish_labels(AioKafkaCluster(guarded.scram("labeller")), f"{PREFIX}classify.labels", labels=labels)
        assert await logged(trainer_log, r"trainer\.leads")
        assert await logged(trainer_log, r"labels\.read ")
        replayed = await headrace(*command, "dead-letters", "replay", "--all", environment=as_user("operator"))
        assert replayed.startswith("replayed 1,")
    for log in (worker_log, trainer_log):
        assert "no right to" not in log.read_text()
        assert not any(password in log.read_text() for password in passwords().values())


def client(guarded: Guarded, role: str) -> Client:
    names = {"requests": f"{PREFIX}classify.requests", "results": f"{PREFIX}classify.results"}
    return Client(AioKafkaCluster(guarded.scram(role)), **names)


async def publish(guarded: Guarded) -> None:
    async with client(guarded, "producer") as producer:
        await producer.publish_many(f"the good film {number}" for number in range(TEXTS))
        await producer.publish(b"{rubbish", headers=[(CONTENT_TYPE, JSON.encode())])


async def read_alone(guarded: Guarded) -> tuple[int, int]:
    """How many answers are `ok`, and how many are `failed`."""
    found: list[Status] = []
    async with (
        within(LIMIT_S, "the answers to all texts"),
        client(guarded, "reader") as only_reads,
        only_reads.reader("beginning") as reader,
    ):
        while len(found) <= TEXTS:
            found += [answer.result.status for answer in await reader.read()]
    return found.count(Status.OK), found.count(Status.FAILED)


async def read_in_a_group(guarded: Guarded) -> None:
    read = 0
    async with (
        within(LIMIT_S, "the reading of all answers by a group"),
        client(guarded, "reader") as only_reads,
        only_reads.group_reader(GROUP, "beginning") as member,
    ):
        while read <= TEXTS:
            for answer in await member.read():
                member.mark(answer)
                read += 1
            await member.commit()
