"""Reviews of requests that were answered without a label: by a label that people gave the text, else by the teacher's.

A person's review of the request outranks both, so nothing is published behind one. If both come at the same moment, the
teacher's may still stand behind it; readers keep the person's. A review has the label that its label is learnt as now;
a label that is no longer given has no review.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.label_rules import learnt_as
from headrace.core.text import label_name
from headrace.kafka.interface import Outgoing
from headrace.kafka.retry import PatientSender
from headrace.labeller.answers import Chosen
from headrace.labeller.known_texts import PERSON, KnownTexts
from headrace.labeller.metrics import LabellerMetrics
from headrace_schemas.codec import encode_review
from headrace_schemas.records import Review
from headrace_schemas.topics import review_key

TEACHER = "teacher"


class Due(msgspec.Struct, frozen=True):
    """A review that is due: of which answer, and the label. ``by`` is the teacher's version, None for people."""

    chosen: Chosen
    label: str
    score: float | None = None
    by: str | None = None


class ReviewWriter:
    """Publishes reviews of answers on ``results`` to ``topic``, but of none that a person reviewed and with no label
    that is no longer given.
    """

    def __init__(
        self,
        sender: PatientSender,
        known: KnownTexts,
        *,
        topic: str,
        results: str,
        clock: Clock,
        metrics: LabellerMetrics,
    ) -> None:
        self._sender = sender
        self._known = known
        self._topic = topic
        self._results = results
        self._clock = clock
        self._metrics = metrics

    async def publish(self, due: Sequence[Due]) -> None:
        """Publish them, each to the partition number of its answer. Raises as the sender does."""
        by_partition: dict[int, list[Outgoing]] = {}
        # A topic that has not grown with the answers' has fewer.
        partitions = max(1, self._known.review_partitions)
        for one in due:
            chosen = one.chosen
            label = learnt_as(label_name(one.label), self._known.rules)
            if label is None or self._known.reviewed(chosen.partition, chosen.offset):
                continue
            review = Review(
                results=self._results,
                partition=chosen.partition,
                offset=chosen.offset,
                label=label,
                origin=PERSON if one.by is None else TEACHER,
                reviewed_at_ms=self._clock.now_ms(),
                id=chosen.id,
                score=one.score,
                by=one.by,
            )
            key = review_key(review.results, review.partition, review.offset)
            record = Outgoing(encode_review(review), key, chosen.trace)
            by_partition.setdefault(chosen.partition % partitions, []).append(record)
        for partition, records in by_partition.items():
            await self._sender.send_batch(self._topic, partition, records)
            self._metrics.reviewed(len(records))
