"""Dead letters that only operators can read, by the real commands on a real broker; and topics that forget sooner."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from headrace.client import prepare
from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from headrace.process.children import child
from headrace_load.processes import slowness
from tests.support.networks import random_network
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.streams import answered

VALUE = b'{"text": "a secret that ends too early'
HOUR_MS = "3600000"


async def headrace(*arguments: str) -> str:
    command = [sys.executable, "-m", "headrace", *arguments]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        check=True,
        timeout=LIMIT_S * slowness(),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return done.stdout


@pytest.mark.slow  # seven starts of a command
async def test_a_sealed_dead_letter_is_shown_and_replayed_by_who_has_the_key_alone(embedded_bootstrap, tmp_path):
    key = str(tmp_path / "operators.pem")
    settings = tmp_path / "headrace.toml"
    settings.write_text(await headrace("dead-letters", "keygen", "--out", key))
    save(assemble(quantize(random_network(3)), About()), str(tmp_path / "model.safetensors"))
    place = OwnTopics(embedded_bootstrap, tmp_path / "model.safetensors", tmp_path, embedded=True)
    retention = [f"topics.{name}_retention_ms={HOUR_MS}" for name in ("requests", "results")]
    await headrace(*(part for one in retention for part in ("--set", one)), *place.at, "topics", "apply")
    worker = (sys.executable, "-m", "headrace", "--config", str(settings), *place.command)
    async with place.client() as client, child(worker, log=place.log):
        await client.publish_many([prepare(VALUE, key=b"somebody")])
        await answered(client, 1)
        (listed,) = (await headrace(*place.at, "dead-letters", "list", "--json")).splitlines()
        at = json.loads(listed)["place"]
        for option, seen in (((), False), (("--key-file", key), True)):
            shown = json.loads(await headrace(*place.at, "dead-letters", "show", *option, at))
            assert (shown.get("kept"), shown.get("key")) == ((None, "c29tZWJvZHk=") if seen else ("encrypted", None))
        assert "--key-file" in await headrace(*place.at, "dead-letters", "replay", at)
        assert "replayed 1, " in await headrace(*place.at, "dead-letters", "replay", at, "--key-file", key)
        # It fails again, so it was the same request.
        await answered(client, 2)
    assert "secret" not in place.log.read_text() + listed
