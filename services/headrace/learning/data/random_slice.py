"""The random slice: labels that people gave to texts chosen by chance, of which a version never saw some.

Only labels with the source :data:`~headrace.core.cascade.RANDOM_SLICE` are a sample of what comes in, and only those
that lie behind the version's snapshot and were given after it are of texts that it never saw. Certificates are made of
these, and versions are measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headrace.core.cascade import RANDOM_SLICE
from headrace.core.label_rules import Rules, answered_as
from headrace.core.text import label_name
from headrace.kafka.interface import Cluster
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import records_that_count, ruled
from headrace.learning.data.validation import NO_RULES, clean, text_keys
from headrace.learning.evaluate import Answered
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import LabelledText, ModelVersion

OTHERS = 5000
"""So many rows beside the sample are enough to choose the grid of thresholds by."""

Ask = Callable[[Sequence[str]], Answered]
"""What a version answers to texts, whatever their scores are."""


class SliceRows(msgspec.Struct, frozen=True):
    """``sample``: the random slice that a version never saw. ``others``: rows by which the grid is chosen."""

    sample: Rows
    others: Rows


def unseen(labels: Sequence[tuple[int, int, LabelledText]], version: ModelVersion) -> SliceRows:
    """Divide ``labels``, each with its partition and offset, the last of each id.

    A text that the version may have seen under another id is in neither.
    """
    ends = {} if version.lineage is None else {one.partition: one.end for one in version.lineage.offsets}
    seen: list[LabelledText] = []
    sample: list[LabelledText] = []
    for partition, offset, label in labels:
        new = offset >= ends.get(partition, 0) and (label.labelled_at_ms or 0) > version.created_at_ms
        (sample if new and label.source == RANDOM_SLICE else seen).append(label)
    known = set(text_keys([label.text for label in seen]))
    keys = text_keys([label.text for label in sample])
    fresh = [label for label, key in zip(sample, keys, strict=True) if key not in known]
    return SliceRows(clean(rows_of(fresh)).rows, clean(rows_of(seen[:OTHERS])).rows)


async def read_label_records(
    cluster: Cluster, topic: str, max_text_bytes: int, rules: Rules = NO_RULES
) -> list[tuple[int, int, LabelledText]]:
    """The labels that ``topic`` holds now: the last of each id with its partition and offset, without those erased.

    They are as they are learnt by ``rules``, without those whose class is no longer given.

    What can't be decoded is passed over: the trainer dead-letters it. Raises a KafkaError.
    """
    found = []
    for record in await records_that_count(cluster, topic):
        if not record.key or record.discarded is not None:
            continue
        try:
            label = decode_label(record.value, content_type(record.headers), limit=max_text_bytes)
        except WireError:
            continue
        if label is not None and (learnt := ruled(label, rules)) is not None:
            found.append((record.partition, record.offset, learnt))
    return found


def by_rules(labels: Sequence[LabelledText], rules: Rules) -> list[LabelledText]:
    """``labels`` as they are learnt by now, without those whose class is no longer given."""
    return [learnt for label in labels if (learnt := ruled(label, rules)) is not None]


def asked_by_rules(ask: Ask, rules: Rules) -> Ask:
    """``ask`` of a version that may be older than ``rules``: a label that was renamed since is the new one."""

    def asked(texts: Sequence[str]) -> Answered:
        answers = ask(texts)
        return Answered(tuple(answered_as(label, rules) for label in answers.labels), answers.scores)

    return asked


def rows_of(labels: Sequence[LabelledText]) -> Rows:
    """``labels`` as rows, their names as training spells them."""
    return Rows(tuple(label.text for label in labels), tuple(label_name(label.label) for label in labels))
