"""The certificate of a champion, watched as long as it holds: what the random slice shows of its answers since.

``headrace.learning.certifying`` makes certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from headrace.core.cascade import (
    RANDOM_SLICE,
    lower_bound_anytime,
    upper_bound_anytime,
)
from headrace.core.clock import Clock
from headrace.core.label_rules import Rules
from headrace.kafka.following import follow
from headrace.kafka.interface import Cluster, Record, TopicPartition
from headrace.learning.data.files import Rows
from headrace.learning.data.random_slice import Ask, asked_by_rules, by_rules, rows_of
from headrace.learning.data.validation import NO_RULES, clean
from headrace.learning.evaluate import Answered
from headrace.model.errors import ArtifactError
from headrace.process.logs import event
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.training_run import Offload
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import Certificate, LabelledText, ModelVersion, ThresholdRaise

DISAGREEMENT_RULE = "disagreement"
NOTHING_ALONE = 1.0

OpenVersion = Callable[[ModelVersion], Ask]
"""Makes a version ready to be asked. Raises ArtifactError."""


class Watched(msgspec.Struct, frozen=True):
    """What the random slice showed since a certificate: of ``rows`` above its threshold, ``errors`` were wrong.

    ``lower`` and ``upper`` bound the share of errors at every moment; see :mod:`headrace.core.cascade`.
    """

    rows: int
    errors: int
    lower: float
    upper: float


def watched(certificate: Certificate, threshold: float, answers: Answered, rows: Rows) -> Watched:
    """What ``rows``, all of the slice since the certificate, show of ``answers`` from the ``threshold`` on."""
    wrong = [is_wrong for score, is_wrong in _errors(answers, rows) if score >= threshold]
    counts = (sum(wrong), len(wrong), certificate.disagree, certificate.confidence)
    return Watched(len(wrong), sum(wrong), lower_bound_anytime(*counts), upper_bound_anytime(*counts))


def raise_for(
    certificate: Certificate, threshold: float, seen: Watched, answers: Answered, rows: Rows, *, now_ms: int
) -> ThresholdRaise | None:
    """The raise that a broken bound asks for, None while it holds.

    The new threshold is the lowest score from which on the bound holds from above as well; where there is none,
    nothing is answered alone.
    """
    if seen.lower <= certificate.disagree:
        return None
    risen, errors = NOTHING_ALONE, 0
    above = sorted((pair for pair in _errors(answers, rows) if pair[0] >= threshold), reverse=True)
    for count, (score, is_wrong) in enumerate(above, 1):
        errors += is_wrong
        if upper_bound_anytime(errors, count, certificate.disagree, certificate.confidence) <= certificate.disagree:
            risen = score
    return ThresholdRaise(
        name=certificate.name,
        version=certificate.version,
        threshold=risen,
        rule=DISAGREEMENT_RULE,
        reason=f"{seen.errors} of {seen.rows} labels of the random slice above {threshold:.6f} differ from the answer: "
        f"the share is at least {seen.lower:.2%}, and {certificate.disagree:.2%} was certified",
        raised_at_ms=now_ms,
        figures={
            "rows": float(seen.rows),
            "errors": float(seen.errors),
            "lower": seen.lower,
            "upper": seen.upper,
            "allowed": certificate.disagree,
        },
    )


def _errors(answers: Answered, rows: Rows) -> list[tuple[float, bool]]:
    """Of each row the score of the answer, and whether the answer is wrong."""
    return [
        (score, given != true) for given, score, true in zip(answers.labels, answers.scores, rows.labels, strict=True)
    ]


class CascadeWatch:
    """Follows the labels of the random slice, and says when the champion's certificate is broken.

    ``open_version`` makes a version ready to be asked, on a thread. Only labels that were given after the certificate
    count.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        labels: str,
        max_text_bytes: int,
        open_version: OpenVersion,
        offload: Offload,
        clock: Clock,
        metrics: TrainerMetrics,
    ) -> None:
        self._cluster = cluster
        self._topic = labels
        self._max_text_bytes = max_text_bytes
        self._open_version = open_version
        self._offload = offload
        self._clock = clock
        self._metrics = metrics
        self._labels: dict[bytes, LabelledText] = {}
        self._changed = False
        self._certified: tuple[ModelVersion, Certificate, float, Rules] | None = None
        self._asked: tuple[str, Ask] | None = None
        self.broken: ThresholdRaise | None = None
        """What a broken bound asks for, until somebody takes it."""

    def follow(
        self,
        champion: ModelVersion | None,
        certificate: Certificate | None,
        threshold: float,
        rules: Rules = NO_RULES,
    ) -> None:
        """Watch ``certificate`` of ``champion``, of which workers keep to ``threshold`` now, from here on.

        ``rules`` say what labels are learnt as by now.
        """
        now = None if champion is None or certificate is None else (champion, certificate, threshold, rules)
        if now == self._certified:
            return
        self._certified, self._changed, self.broken = now, True, None
        if now is None:
            self._metrics.not_certified()

    async def run(self) -> None:
        """Follow the labels until cancelled. Raises KafkaErrors that can't be mended here."""
        await follow(
            self._cluster,
            self._topic,
            self._take_and_look,
            from_end=False,
            doing="following the random slice",
            clock=self._clock,
        )

    async def _take_and_look(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        self._take(chunks)
        if self._changed and self._certified is not None:
            self._changed = False
            await self._look(*self._certified)

    def _take(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for record in (record for records in chunks.values() for record in records):
            if not record.key or record.discarded is not None:
                continue
            try:
                label = decode_label(record.value, content_type(record.headers), limit=self._max_text_bytes)
            except WireError:  # the reader of labels dead-letters it
                continue
            if self._labels.pop(record.key, None) is not None:
                self._changed = True
            if label is not None and label.source == RANDOM_SLICE:
                self._labels[record.key] = label
                self._changed = True

    async def _look(self, champion: ModelVersion, certificate: Certificate, threshold: float, rules: Rules) -> None:
        since = [label for label in self._labels.values() if (label.labelled_at_ms or 0) > certificate.certified_at_ms]
        rows = clean(rows_of(by_rules(since, rules))).rows
        try:
            if self._asked is None or self._asked[0] != champion.version:
                self._asked = champion.version, await self._offload(lambda: self._open_version(champion))
            ask = asked_by_rules(self._asked[1], rules)
            answers = await self._offload(lambda: ask(rows.texts))
        except ArtifactError as error:
            event("cascade.unwatched", level="warning", version=champion.version, why=str(error))
            return
        seen = watched(certificate, threshold, answers, rows)
        self._metrics.disagreement(seen.lower, seen.upper, certificate.disagree)
        self.broken = raise_for(certificate, threshold, seen, answers, rows, now_ms=self._clock.now_ms())
