"""What a worker's dead letters keep of a request, by its settings."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.client.dead_letters import opened, read_dead_letters
from headrace.config import load_settings
from headrace.kafka.dead_letters import keeping
from headrace.security.keys import SEALING, PrivateKey, public_key_text
from headrace.worker.worker import Worker
from headrace_schemas.dead_letters import CUT, ENCRYPTED, NOTHING
from headrace_schemas.records import Status
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import WorkerCluster, story

KEY = PrivateKey(bytes(range(32)), "test.pem")
VALUE = b'{"text": "a secret that ends too early'
KEPT = {
    "whole": (None, VALUE, b"key", (("tenant", b"shop"),)),
    "cut": (CUT, VALUE[:9], b"key", (("tenant", b"shop"),)),
    "nothing": (NOTHING, None, None, ()),
}


def sets(keep: str) -> list[str]:
    more = {
        "cut": ["dead_letters.cut_bytes=9"],
        "encrypted": [f"dead_letters.public_key={public_key_text(SEALING, KEY.public())}"],
    }
    return [f"dead_letters.keep={keep}", *more.get(keep, [])]


@pytest.mark.parametrize("keep", ["whole", "cut", "encrypted", "nothing"])
def test_a_worker_keeps_of_a_failed_request_what_its_settings_say(keep: str) -> None:
    settings = load_settings(None, {}, sets(keep)).settings

    def make(**parts: Any) -> Worker:
        return Worker(**parts, keep=keeping(settings.dead_letters))

    @story
    async def play(world: WorkerCluster) -> None:
        world.start(make=make)
        await world.publish_value(VALUE, key=b"key", headers=(("tenant", b"shop"),))
        (answer,) = await world.answered(1)
        assert (answer.status, answer.reason) == (Status.FAILED, "bad-bytes")
        (found,) = [one async for one in read_dead_letters(world.cluster, TOPICS.dead_letters)]
        letter = found.letter
        if keep == "encrypted":
            assert found.kept == ENCRYPTED
            assert b"secret" not in (letter.value or b"")
            assert (letter.key, letter.headers) == (None, ())
            found = opened(found, KEY)
            letter = found.letter
        wanted = KEPT["whole" if keep == "encrypted" else keep]
        assert (found.kept, letter.value, letter.key, letter.headers) == wanted

    play()
