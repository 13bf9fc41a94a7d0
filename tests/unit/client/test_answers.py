"""`Client.answers` over the in-memory twin."""

import asyncio
from contextlib import aclosing

from headrace.kafka.interface import (
    TopicPartition,
)
from tests.support.client_scene import RESULTS, Scene, scene


@scene
async def test_answers_go_on_for_ever_and_a_group_keeps_its_place(stage: Scene) -> None:
    stage.writer.start()
    seen: list[int] = []

    async def read(count: int) -> None:
        async with aclosing(stage.client.answers("beginning", group="billing")) as answers:
            async for one in answers:
                seen.append(one.result.offset)
                if len(seen) >= count:
                    # Past the second after which the place is kept.
                    await stage.clock.sleep(2.0)
                if len(seen) == count + 1:
                    return

    reading = asyncio.create_task(read(5))
    for number in range(7):
        await stage.client.publish(f"text {number}", partition=0)
        await stage.clock.sleep(0.1)
    await reading
    assert seen == [0, 1, 2, 3, 4, 5]
    committed = stage.cluster.committed("billing")
    assert 0 < committed[TopicPartition(RESULTS, 0)] <= 6
