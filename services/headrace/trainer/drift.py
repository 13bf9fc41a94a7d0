"""Drift of the champion: its answers, followed on the results topic, against those it gave at training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from headrace.core.clock import Clock
from headrace.core.drift import Drift, DriftWindow, check_profile, tenths
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
        self._answers = answers
        self._seconds = seconds
        self._clock = clock
        self._metrics = metrics
        self._champion: ModelVersion | None = None
        self._places: dict[str, int] = {}
        self._window: DriftWindow | None = None

    def follow(self, champion: ModelVersion | None) -> None:
        """Measure against ``champion`` from now on; a version without a profile has no drift."""
        if champion == self._champion:
            return
        self._champion = champion
        self._window = None
        if champion is not None and champion.profile is not None:
            try:
                check_profile(champion.profile, len(champion.labels))
            except ValueError as error:
                # The record's own, which anybody may have written who may write the topic.
                event("drift.unmeasurable", level="warning", version=champion.version, why=str(error))
                return
            self._places = {label: place for place, label in enumerate(champion.labels)}
            self._window = DriftWindow(champion.profile, answers=self._answers, seconds=self._seconds)

    def measure(self) -> Drift | None:
        """The champion's drift, None while too few of its answers were seen."""
        drift = None if self._window is None else self._window.measure(self._clock.monotonic())
        self._metrics.drift(drift)
        return drift

    async def run(self) -> None:
        """Follow until cancelled; a topic that is not there is waited for. Raises KafkaErrors that can't be mended."""
        await follow(
            self._cluster, self._results, self._take, from_end=True, doing="following the answers", clock=self._clock
        )

    async def _take(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        if self._window is None or self._champion is None:
            return
        for records in chunks.values():
            given = [
                (self._places[label], answer.score or 0.0)
                for answer in _answers(records)
                if answer.version == self._champion.version and (label := _best(answer)) in self._places
            ]
            labels = Counter(label for label, _ in given)
            self._window.add(labels, tenths([score for _, score in given]), self._clock.monotonic())


def _answers(records: Sequence[Record]) -> list[ClassifyResult]:
    answers = []
    for record in records:
        try:
            answers.append(decode_result(record.value, content_type(record.headers)))
        except WireError as error:
            event("drift.rubbish", level="warning", offset=record.offset, error=str(error))
    return answers


def _best(answer: ClassifyResult) -> str | None:
    """The label of an answer, of one that abstains the first of its ranking, and none of a failed one."""
    if answer.label is not None:
        return answer.label
    return answer.ranking[0].label if answer.ranking else None
