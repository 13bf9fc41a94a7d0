"""The client and its commands against a real broker; a few lines stand in for the worker."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.kafka.interface import Outgoing, Record, TopicPartition, TopicSpec
from headrace_schemas.codec import decode_request
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.headers import read_attempt
from headrace_schemas.records import DeadLetter
from tests.support.answered_site import PARTITIONS, Site
from tests.support.waiting import within

LIMIT_S = 40.0


# Kafka itself is what users have; on the embedded broker the tests are slow ones.
@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.slow), pytest.param("apache", marks=pytest.mark.apache)]
)
def kind(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """The address of each broker in turn, and whether it has idempotent producers."""
    return request.getfixturevalue(f"{request.param}_bootstrap"), request.param != "embedded"


@pytest.fixture
async def site(kind: tuple[str, bool]) -> AsyncIterator[Site]:
    bootstrap, idempotent = kind
    site = Site(bootstrap, idempotent=idempotent)
    await site.create_topics()
    answering = asyncio.create_task(site.answer())
    yield site
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


async def test_a_file_is_published_and_every_line_answered_once(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"text {number}\n" for number in range(300)))
    code, out, err = await site.run("publish", str(file))
    assert (code, err) == (0, "")
    assert out.startswith(f"published 300 requests to {site.requests} in ")
    code, out, err = await site.run("tail", "--from", "beginning", "--count", "300")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len({(line["partition"], line["offset"]) for line in lines}) == 300
    assert not any("hole" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_line_of_a_pipe_leaves_before_the_next_and_a_signal_says_how_many_went(
    site: Site, number: signal.Signals
) -> None:
    consumer = await site.from_the_beginning(site.requests, PARTITIONS)
    async with site.started("publish", "-") as process, within(LIMIT_S, "two lines and the end of the command"):
        assert process.stdin is not None
        for text in ("first", "zweite é"):
            process.stdin.write(f"{text}\n".encode())
            found: list[Record] = []
            while not found:
                fetched = await consumer.fetch(max_records=10, timeout_s=0.2)
                found = [record for records in fetched.values() for record in records]
            assert [decode_request(record.value).text for record in found] == [text]
        process.send_signal(number)
        out, err = await process.communicate()
    await consumer.stop()
    assert (process.returncode, out) == (128 + number, b"")
    said = f"Stopped by {number.name}. 2 requests to {site.requests} were published. --skip 2 goes on behind them."
    assert err.decode() == f"headrace: {said}\n"


async def test_a_label_of_a_pipe_leaves_before_the_next(site: Site) -> None:
    topic = f"{site.prefix}classify.labels"
    admin = site.cluster.admin()
    await admin.start()
    await admin.create_topic(TopicSpec(name=topic, partitions=1))
    await admin.stop()
    consumer = await site.from_the_beginning(topic, 1)
    async with site.started("labels", "publish", "-") as process, within(LIMIT_S, "a label and the end of the command"):
        assert process.stdin is not None
        process.stdin.write(b"label,text\nsport,They won\n")
        while not (found := await consumer.fetch(max_records=10, timeout_s=0.2)):
            pass
        process.stdin.write(b"sport,\n")
        process.stdin.close()
        out, err = await process.communicate()
    await consumer.stop()
    assert [len(records) for records in found.values()] == [1]
    assert (process.returncode, err) == (0, b"")
    assert out.decode() == f"published 1 label to {topic}; left out: 1 empty\n"


async def test_a_text_is_classified_from_the_command_line(site: Site) -> None:
    assert await site.run("classify", "They won again") == (0, "sport  0.500\n", "")


async def test_dead_letters_are_listed_shown_and_replayed_until_their_attempts_are_used_up(site: Site) -> None:
    producer = site.cluster.producer()
    await producer.start()
    for attempt in (1, 3):
        letter = DeadLetter(
            topic=site.requests,
            partition=1,
            offset=attempt,
            timestamp_ms=0,
            stage="decode",
            error="bad-bytes",
            message="no JSON",
            attempt=attempt,
            value=b"{",
        )
        await producer.send(site.dead_letters, Outgoing(b"{", None, dead_letter_headers(letter)), partition=1)
    await producer.stop()
    code, out, _ = await site.run("dead-letters", "list", "--json")
    assert code == 0
    assert [json.loads(line)["place"] for line in out.splitlines()] == ["1@0", "1@1"]
    code, out, _ = await site.run("dead-letters", "show", "1@0")
    assert json.loads(out)["value"] == "ew=="
    assert (await site.run("dead-letters", "replay"))[0] == 2
    code, _, err = await site.run("dead-letters", "replay", "0@7")
    assert (code, "has no dead letter at 0@7" in err) == (2, True)
    code, out, err = await site.run("dead-letters", "replay", "--all")
    assert out.startswith("replayed 0, ")
    assert "refused 1 whose record the log does not hold any more" in out
    code, out, err = await site.run("dead-letters", "replay", "--all", "--unverified")
    left = "left 1 that were tried 3 times or more or are too large, 0 that were replayed before, and refused 0"
    assert (code, out, err) == (0, f"replayed 1, {left}\n", "")
    consumer = site.cluster.consumer()
    await consumer.start()
    name = TopicPartition(site.requests, 1)
    consumer.assign([name])
    consumer.seek(name, 0)
    (record,) = (await consumer.fetch(max_records=10, timeout_s=5.0))[name]
    await consumer.stop()
    assert (record.value, read_attempt(record.headers)) == (b"{", 2)


async def test_a_reading_group_keeps_its_place_in_kafka(site: Site) -> None:
    async with (
        Client(site.cluster, requests=site.requests, results=site.results) as client,
        within(LIMIT_S, "the reading of ten answers by a group"),
    ):
        await client.publish_many(f"text {number}" for number in range(10))
        async with client.group_reader(f"{site.prefix}billing", "beginning") as member:
            first: list[tuple[int, int]] = []
            while len(first) < 10:
                for one in await member.read():
                    first.append((one.partition, one.result.offset))
                    member.mark(one)
            await member.commit()
        await client.publish_many(f"text {number}" for number in range(10, 15))
        second: list[tuple[int, int]] = []
        async with aclosing(client.answers("beginning", group=f"{site.prefix}billing")) as answers:
            async for one in answers:
                second.append((one.partition, one.result.offset))
                if len(second) == 5:
                    break
    assert len({*first, *second}) == 15


async def test_a_topic_that_is_absent_is_said_with_what_creates_it(embedded_bootstrap: str) -> None:
    nowhere = Site(embedded_bootstrap, idempotent=False)
    code, _, err = await nowhere.run("classify", "x")
    assert code == 1
    assert "Create it first, for example by `headrace topics apply`." in err
    assert "Traceback" not in err
