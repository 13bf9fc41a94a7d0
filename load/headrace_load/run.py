"""One run of one workload against one contender."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaConsumer

from headrace.security.private_folder import temporary_folder
from headrace_load.contender import Contender
from headrace_load.measure.course import Setting, drained, streamed
from headrace_load.measure.judging import judged
from headrace_load.progress import Progress
from headrace_load.result import Result
from headrace_load.system import Start, System
from headrace_load.workload.spec import Backlog, TopicTexts, Workload
from headrace_load.workload.texts import load_texts, topic_texts


async def run(
    workload: Workload,
    contender: Contender | None,
    system: System,
    *,
    start: Start | None,
    name: str,
    progress: Callable[[Progress], None],
) -> Result:
    """Run once on ``system``, whose topics are there. ``start`` starts the contender; None: something answers already.

    Raises WorkloadError, KafkaSettingsError, a KafkaError, MeasuringError, an OSError of the metrics, and what
    ``start`` raises. Whatever it raises, no process of its own is left.
    """
    # Texts and perhaps a password are in these files: they are for their owner alone, and gone with the run.
    with temporary_folder("headrace-load-") as folder:
        texts = folder / "texts.json"
        texts.write_bytes(msgspec.json.encode(await _texts(workload, system)))
        setting = Setting(
            workload=workload,
            system=system,
            answers=contender.program.answers if contender and contender.program else "log",
            start=start,
            folder=folder,
            texts=texts,
            progress=progress,
        )
        drain = isinstance(workload.arrivals, Backlog)
        return judged(workload, contender, name, await (drained(setting) if drain else streamed(setting)))


async def _texts(workload: Workload, system: System) -> list[str]:
    if not isinstance(workload.texts, TopicTexts):
        return load_texts(workload.texts, workload.seed)
    consumer = AIOKafkaConsumer(**system.client_options(), enable_auto_commit=False)
    await consumer.start()
    try:
        return await topic_texts(consumer, workload.texts)
    finally:
        await consumer.stop()
