"""The publishers and readers of examples/ on Apache Kafka, while a worker is killed: each request once, in order."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from headrace.process.children import child
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.waiting import until

pytestmark = pytest.mark.slow
BUILT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace" / "examples"
PROGRAMS = {
    "java": ("java", "-cp", f"{BUILT}/java/classes:{BUILT}/java/jars/*", "Headrace"),
    "go": (f"{BUILT}/go/headrace-example",),
    "typescript": ("node", f"{BUILT}/typescript/dist/headrace.js"),
}
TEXTS = 6000
PARTITIONS = 4


def lines(log: Path) -> list[dict[str, Any]]:
    """What a program has printed, but for a line that it is still writing."""
    whole = log.read_text(encoding="utf-8").rpartition("\n")[0] if log.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def apart(program: tuple[str, ...], errors: Path, texts: str = os.devnull) -> tuple[str, ...]:
    """``program`` with ``texts`` as its standard input, and its errors in a file of their own."""
    return ("env", f"ERRORS={errors}", "sh", "-c", 'exec "$@" <"$0" 2>>"$ERRORS"', texts, *program)


async def read_until(program: tuple[str, ...], log: Path, enough: Callable[[], Awaitable[bool]]) -> None:
    """Read with ``program`` until it has done ``enough``, and stop it by SIGTERM."""
    async with child(program, log=log) as reader:

        async def done() -> bool:
            assert reader.process.returncode is None, lines(log)
            return await enough()

        await until(done, LIMIT_S)
        reader.process.send_signal(signal.SIGTERM)
        assert await reader.process.wait() in (0, 128 + signal.SIGTERM)  # the second is Java's


async def is_at_the_end(bootstrap: str, results: str, group: str) -> bool:
    """Whether ``group`` has committed all that is in ``results``."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(results, partition) for partition in range(PARTITIONS)]
        ends = await consumer.end_offsets(places)
        return all([await consumer.committed(place) == ends[place] for place in places])
    finally:
        await consumer.stop()


async def repeat_the_first_answers(bootstrap: str, results: str) -> None:
    """Append the first answer of each partition once more, as a worker that was cut off may."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await consumer.start()
    await producer.start()
    for partition in range(PARTITIONS):
        place = TopicPartition(results, partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        first = await consumer.getone()
        again = await producer.send_and_wait(results, first.value, key=first.key, partition=partition)
        assert again.offset > first.offset
    await producer.stop()
    await consumer.stop()


@pytest.mark.parametrize("language", PROGRAMS)
async def test_each_request_has_exactly_one_accepted_answer_though_a_worker_is_killed(
    language: str, apache_bootstrap: str, tmp_path: Path
) -> None:
    if not (BUILT / language).exists():
        pytest.skip(f"the example in {language} is not built: `make examples` does")
    program = PROGRAMS[language]
    model = tmp_path / "model.safetensors"
    random_version(3, model)
    site = OwnTopics(apache_bootstrap, model, tmp_path, embedded=False)
    site.apply()
    at = (apache_bootstrap, f"{site.prefix}classify")
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{text(number)}\n" for number in range(TEXTS)), encoding="utf-8")

    sent, read, errors = (tmp_path / name for name in ("sent.jsonl", "read.jsonl", "errors.log"))
    results, group = f"{at[1]}.results", f"{site.prefix}{language}"
    reading = apart((*program, "read", at[0], results, group), errors)

    async def begun() -> bool:
        return len(lines(read)) >= TEXTS // 10

    async def whole() -> bool:
        return len(lines(read)) >= TEXTS and await is_at_the_end(apache_bootstrap, results, group)

    feeding = apart((*program, "publish", at[0], f"{at[1]}.requests"), errors, str(texts))
    # Small batches, so that the kill falls between them.
    site.command = ("--set", "worker.max_batch=64", *site.command)
    async with site.worker() as killed, child(feeding, log=sent) as publisher:
        await read_until(reading, read, begun)
        killed.process.send_signal(signal.SIGKILL)
        async with site.worker():
            assert await publisher.process.wait() == 0, sent.read_text(encoding="utf-8")
            await repeat_the_first_answers(apache_bootstrap, results)
            # Begun again, it goes on from what its group committed.
            await read_until(reading, read, whole)
            # A reader that took a repeat would have one more.
    assert "have no answer" not in errors.read_text(encoding="utf-8")
    acknowledged = {(line["partition"], line["offset"]): line["crc"] for line in lines(sent)}
    answered = lines(read)
    assert len(acknowledged) == TEXTS
    assert Counter((line["partition"], line["offset"]) for line in answered) == Counter(acknowledged.keys())
    assert all(acknowledged[line["partition"], line["offset"]] == line["crc"] for line in answered)
    assert {line["status"] for line in answered} == {"ok"}
    for partition in range(PARTITIONS):
        offsets = [line["offset"] for line in answered if line["partition"] == partition]
        assert offsets == sorted(offsets)
