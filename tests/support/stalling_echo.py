"""A program that answers every request by its id, and now and then does nothing for a while.

It is told by its environment: BOOTSTRAP, REQUESTS, RESULTS; and EVERY_S, STALL_S: in every so many seconds it stalls
for so many, in the middle. It prints `ready`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


async def main() -> None:
    topic, results = os.environ["REQUESTS"], os.environ["RESULTS"]
    every_s, stall_s = float(os.environ["EVERY_S"]), float(os.environ["STALL_S"])
    consumer = AIOKafkaConsumer(bootstrap_servers=os.environ["BOOTSTRAP"], enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"], max_batch_size=1024 * 1024)
    async with consumer, producer:
        partitions = [TopicPartition(topic, number) for number in range(int(os.environ["PARTITIONS"]))]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
        stall_at = time.monotonic() + every_s / 2
        while True:
            chunks = await consumer.getmany(timeout_ms=50, max_records=5000)
            if stall_s and time.monotonic() >= stall_at:
                stall_at += every_s
                time.sleep(stall_s)  # noqa: ASYNC251 - the whole program, as a garbage collector or a swapping machine would
            for partition, records in chunks.items():
                batch = producer.create_batch()
                for record in records:
                    answer = json.dumps({"id": json.loads(record.value)["id"], "label": "echo"}).encode()
                    assert batch.append(key=None, value=answer, timestamp=None) is not None
                await producer.send_batch(batch, results, partition=partition.partition)


asyncio.run(main())
