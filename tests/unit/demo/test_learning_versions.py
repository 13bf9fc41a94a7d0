import asyncio

import pytest

from headrace.demo.learning.service import LIMIT_S, Made, TrainingEndedError, made_by, training_begun
from headrace.kafka.interface import TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace.registry.models_log import ModelsLog, ModelsWriter
from headrace_schemas.records import ModelsRecord, ModelVersion, Training, TrainingState, Verdict
from tests.support.turned_loop import TurnedClock, run_turned

VERSION = ModelVersion(
    name="default", version="v", uri="memory://v", sha256="0" * 64, size=1, labels=("a", "b"), created_at_ms=1
)
VERDICT = Verdict(name="default", version="v", promoted=True, reason="it is good", decided_at_ms=1)


def training(number: int, state: TrainingState, **more: str) -> Training:
    return Training(
        name="default", id=f"t{number}", state=state, reason="asked", begun_at_ms=number, offsets=(), **more
    )


def told(*later: ModelsRecord) -> Made:
    """What is found of a second training when the trainer publishes ``later``, a second apart."""

    async def main() -> Made:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name="models", partitions=1))
        producer, log = cluster.producer(), ModelsLog(cluster, "models")
        await producer.start()
        writer = ModelsWriter(producer, "models")
        await writer.publish([training(1, TrainingState.DONE, version="before")])
        await log.start()

        async def trainer() -> None:
            for record in later:
                await clock.sleep(1.0)
                await writer.publish([record])

        training_on = asyncio.create_task(trainer())
        try:
            return await made_by(await training_begun(log, "default", "t1", clock), log, clock)
        finally:
            training_on.cancel()
            await asyncio.gather(training_on, return_exceptions=True)
            await log.stop()
            await producer.stop()
            await cluster.close()

    return run_turned(main())


def test_a_version_is_told_with_its_training_and_its_verdict() -> None:
    done = training(2, TrainingState.DONE, version="v")
    made = told(training(2, TrainingState.RUNNING), VERSION, VERDICT, done)
    assert made == Made(done, VERSION, VERDICT)


def test_a_training_that_fails_ends_the_wait_with_its_reason() -> None:
    failed = training(2, TrainingState.FAILED, error="there is no room")
    with pytest.raises(TrainingEndedError, match="Training t2 failed: there is no room"):
        told(training(2, TrainingState.RUNNING), failed)


def test_no_training_is_waited_for_for_ever() -> None:
    with pytest.raises(TrainingEndedError, match=f"The trainer has begun no training in {LIMIT_S:.0f} s"):
        told()
    with pytest.raises(TrainingEndedError, match="The trainer has not ended training t2 in"):
        told(training(2, TrainingState.RUNNING))
