"""Drift of the champion: its answers, followed on the results topic, against those it gave at training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.core.clock import Clock
from headrace.core.drift import Drift, VersionDrift
from headrace.kafka.following import follow
from headrace.kafka.interface import Cluster, Record, TopicPartition
from headrace.process.logs import event
from headrace.trainer.metrics import TrainerMetrics
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import ClassifyResult, ModelVersion


class DriftWatch:
    """Follows the results topic from its present end; answers of other versions than the champion don't count.

    The window holds at most ``answers`` answers of the last ``seconds`` seconds.
    """

    def __init__(
        self, cluster: Cluster, *, results: str, answers: int, seconds: float, clock: Clock, metrics: TrainerMetrics
    ) -> None:
        self._cluster = cluster
        self._results = results
        self._drift = VersionDrift(answers=answers, seconds=seconds)
        self._clock = clock
        self._metrics = metrics

    def follow(self, champion: ModelVersion | None) -> None:
        """Measure against ``champion`` from now on; a version without a profile has no drift."""
        try:
            self._drift.follow(champion)
        except ValueError as error:
            # The record's own, which anybody may have written who may write the topic.
            version = None if champion is None else champion.version
            event("drift.unmeasurable", level="warning", version=version, why=str(error))

    def measure(self) -> Drift | None:
        """The champion's drift, None while too few of its answers were seen."""
        drift = self._drift.measure(self._clock.monotonic())
        self._metrics.drift(drift)
        return drift

    async def run(self) -> None:
        """Follow until cancelled; a topic that is not there is waited for. Raises KafkaErrors that can't be mended."""
        await follow(
            self._cluster, self._results, self._take, from_end=True, doing="following the answers", clock=self._clock
        )

    async def _take(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        if not self._drift.measurable:
            return
        for records in chunks.values():
            self._drift.add(_answers(records), self._clock.monotonic())


def _answers(records: Sequence[Record]) -> list[ClassifyResult]:
    answers = []
    for record in records:
        try:
            answers.append(decode_result(record.value, content_type(record.headers)))
        except WireError as error:
            event("drift.rubbish", level="warning", offset=record.offset, error=str(error))
    return answers
