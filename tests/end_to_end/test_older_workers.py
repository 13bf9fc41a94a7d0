"""Workers of today beside those of a version that kept its claims on classify.models, on Apache Kafka under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import TopicPartition
from headrace_load.processes import headrace, running
from tests.support.log_audit import audit
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import text
from tests.support.streams import answered, publish_steadily
from tests.support.waiting import until

# Slow: it compiles two versions' kernels and plays eight starts of workers.
pytestmark = [pytest.mark.apache, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
OLDER = "8e62bd6cf5b011c122800e91c6ac1f89866d7b9d"
BACKLOG = 2_000
RATE = 400.0
MODEL = """
import sys
from headrace.model.artifact import save
from tests.support.networks import random_artifact
save(random_artifact(3), sys.argv[1])
"""


class Older:
    """The older version in a folder of its own: nothing of it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PYTHONPATH": f"{folder / 'services'}:{folder / 'schemas'}:{folder}"}

    async def python(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("env", *(f"{name}={value}" for name, value in self.environment.items()), sys.executable, *arguments),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().strip()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Older:
    """Taken from the project's history. Skips where that is not here."""
    folder = tmp_path_factory.mktemp("older")
    try:
        archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the history does not reach back to {OLDER[:7]} (no git, or a shallow clone): {error}")
    (folder / "all.tar").write_bytes(archive)
    with tarfile.open(folder / "all.tar") as tar:
        tar.extractall(folder, filter="data")
    return Older(folder)


class Fleet:
    """Workers of both versions in one group; each has a log of its own."""

    def __init__(self, place: OwnTopics, older: Older, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.place, self.older, self.folder, self.stack = place, older, folder, stack
        # An older worker can't load every artifact of today, and no model is what is tested here.
        self.command = (*place.command, "--backend", "constant", "--from", "latest")

    async def start(self, name: str):
        """Start a worker and wait until it has resumed a partition; the older ones' names begin with `older`."""
        log = self.folder / f"{name}.log"
        environment = self.older.environment if name.startswith("older") else None
        worker = await self.stack.enter_async_context(running(*self.command, log=log, environment=environment))
        await until(lambda: re.search(r"partition\.resumed", log.read_text()), LIMIT_S)
        return worker


async def keys_of(place: OwnTopics, topic: str) -> list[tuple[str, dict]]:
    """Key and value of what lies on a compacted topic, without tombstones."""
    consumer, name = AioKafkaCluster(place.kafka).consumer(), TopicPartition(place.prefix + topic, 0)
    await consumer.start()
    try:
        consumer.assign([name])
        consumer.seek(name, 0)
        end, found = (await consumer.end_offsets([name]))[name], []
        while await consumer.position(name) < end:
            found += (await consumer.fetch(max_records=1000, timeout_s=0.5)).get(name, ())
    finally:
        await consumer.stop()
    return [(record.key.decode(), json.loads(record.value)) for record in found if record.value is not None]


async def test_workers_of_both_versions_under_load_lose_nothing_and_latest_skips_no_backlog(
    older: Older, apache_bootstrap: str, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    where = await older.python("-c", "import headrace; print(headrace.__file__)")
    assert where.startswith(str(older.folder))
    await older.python("-c", MODEL, str(model))
    place = OwnTopics(apache_bootstrap, model, tmp_path, embedded=False)
    await older.python("-m", "headrace", *place.at, "topics", "apply")

    async with contextlib.AsyncExitStack() as stack, place.client() as client:
        fleet = Fleet(place, older, tmp_path, stack)
        # The older version begins the group at `latest`, and is gone before the first request comes.
        await (await fleet.start("older-1")).stop()
        published = await client.publish_many(text(number) for number in range(BACKLOG))

        too_early = tmp_path / "too-early.log"
        async with running(*fleet.command, log=too_early) as worker:
            assert await worker.process.wait() == 1
        said = too_early.read_text()
        assert f"There is no topic {place.prefix}classify.workers." in said
        assert "`headrace topics apply`" in said

        copied = f"copied the claim on {place.prefix}classify.results"
        assert copied in await headrace(*place.at, "topics", "apply")
        assert copied not in await headrace(*place.at, "topics", "apply")
        shown = await headrace(*place.at, "topics", "claim")
        assert "began at 0@0, 1@0, 2@0, 3@0" in shown
        assert "at most 4,096 requests" in shown

        todays = await fleet.start("todays-1")
        await answered(client, BACKLOG)

        stop = asyncio.Event()
        load = asyncio.create_task(
            publish_steadily(client, [text(number) for number in range(100)], rate=RATE, stop=stop)
        )
        second = await fleet.start("older-2")
        await until_more(client)
        await second.kill()
        third = await fleet.start("older-3")
        await until_more(client)
        await todays.kill()
        await fleet.start("todays-2")
        await until_more(client)
        await third.stop()
        await fleet.start("todays-3")
        await until_more(client)
        stop.set()
        published += await load
        await answered(client, len(published))
        found = await audit(client, published)
    assert found.kept, found.line()
    assert found.by_status == {"ok": len(published)}

    written = {
        name: {record["process"] for key, record in await keys_of(place, topic) if key.startswith("attempt/")}
        for name, topic in (("older", "classify.models"), ("todays", "classify.workers"))
    }
    assert all(written.values())
    assert written["older"].isdisjoint(written["todays"])
    assert [key for key, _ in await keys_of(place, "classify.workers") if key.startswith("claim/")] == [
        f"claim/{place.prefix}classify.results"
    ]


async def until_more(client) -> None:
    """Wait until as many answers more are there as come in some seconds."""
    async with client.reader("latest") as reader:
        now = sum(place.position for place in reader.positions.values())
    await answered(client, now + round(2 * RATE))
