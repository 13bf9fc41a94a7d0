"""What the doctor says of a user's rights, and of the broker's certificate, on a broker with both."""

from __future__ import annotations

import msgspec
import pytest

from headrace.commands.topics import acl_names, wanted_topics
from headrace.config import Settings, TopicsSettings
from headrace.core.clock import SystemClock
from headrace.kafka.acls import Right, Role, rights_of
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import TopicSpec, connected
from headrace.kafka.settings import KafkaSettings
from headrace.sight.doctor import Asked, examine
from headrace.sight.findings import Level
from tests.contract.security.guarded import Guarded, allow

pytestmark = pytest.mark.apache


async def test_a_right_that_is_lacking_is_named_with_the_role_that_needs_it(guarded: Guarded, tmp_path):
    settings = Settings(topics=TopicsSettings(prefix="doctor."))
    names = acl_names(settings, ())
    async with connected(AioKafkaCluster(KafkaSettings(bootstrap=guarded.plain)).admin()) as admin:
        for right in rights_of(Role.WORKER, names):
            if right.resource == "topic":
                await admin.create_topic(TopicSpec(name=right.name, partitions=1))
    whole = rights_of(Role.WORKER, names)
    less = [Right(r.resource, r.name, ("Read",) if r.name == names.results else r.operations) for r in whole]
    await allow(guarded, {"doctored": less, "hale": whole})

    async def said(user: str):
        kafka = guarded.token(user)
        asked = Asked(wanted=tuple(wanted_topics(settings.topics)), names=names, roles=(Role.WORKER,), probe=True)
        own = msgspec.structs.replace(settings, kafka=kafka)
        found = await examine(AioKafkaCluster(kafka), own, asked, SystemClock(), {"HOME": str(tmp_path)})
        return {one.check: one for one in found}

    lacking = await said("doctored")
    right = lacking["rights.worker"]
    assert right.level is Level.ERROR
    assert right.says == f"This user lacks what a worker needs: Write on the topic {names.results}."
    assert right.mend == "headrace topics acl --role worker"
    # A worker may neither describe settings nor make the probe's topic; that is no fault of its own.
    assert lacking["topics"].level is Level.WARNING
    assert lacking["clocks.broker"].level is Level.WARNING
    assert "of the broker at" in lacking["certificates"].says
    assert (await said("hale"))["rights.worker"].level is Level.OK
    stranger = await said("stranger")
    assert f"Read on the group {settings.worker.group}" in stranger["rights.worker"].says
