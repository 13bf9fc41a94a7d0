"""What another version answers to the test rows, and on which of them it may be compared with the new one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from headrace.learning.data.files import Rows
from headrace.learning.data.split import OWN_TEST_FILE, Splits
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.holdout import NO_ROWS
from headrace.learning.distributed.job import Compared, FileSource, TopicSource
from headrace.learning.distributed.shards import Parts
from headrace.learning.evaluate import answer, latency_us
from headrace.model.backends.interface import Backend
from headrace_schemas.records import ModelVersion

T = TypeVar("T")


class _Share(msgspec.Struct, frozen=True, kw_only=True):
    """Of a rank's test rows the labels answered, and what :func:`fair_rows` and :func:`known_rows` say of them."""

    answers: list[str]
    fair: list[bool] | None
    known: list[bool] | None


def compared(
    version: ModelVersion,
    backend: Backend,
    parts: Parts,
    source: FileSource | TopicSource,
    splits: Splits,
    exchange: Exchange,
    holdout: Rows = NO_ROWS,
    monotonic: Callable[[], float] = time.perf_counter,
) -> Compared:
    """Answer this rank's test rows by ``backend``, which is ``version``, and gather what all ranks answered.

    ``parts`` are the rows of the new version, read from ``source``; of ``holdout`` each rank answers its own and keeps
    the answers. A collective.
    """
    test = parts.split.test
    own = _Share(
        answers=answer(backend, test.texts),
        fair=fair_rows(version, parts, splits),
        known=known_rows(version, parts, source),
    )
    told = exchange.gather(own, _Share)
    return Compared(
        version=version.version,
        split=_split_of(version),
        answers=_joined([one.answers for one in told]),
        fair=_all_told([one.fair for one in told]),
        known=_all_told([one.known for one in told]),
        latency_us=latency_us(backend, test.texts or parts.split.train.texts, monotonic),
        holdout_answers=tuple(answer(backend, holdout.texts)),
        spared=version.lineage is not None and version.lineage.holdout == parts.holdout,
    )


def fair_rows(version: ModelVersion, parts: Parts, splits: Splits) -> list[bool] | None:
    """Which of this rank's test rows ``version`` was not trained on: those that its own split calls test too.

    Of the labels that lent test rows to its training, or a row that was moved into the test here, nobody can tell.
    None when its split is not known here, as its key is another one or its test rows were a file of their own.
    """
    test = parts.split.test
    split = _split_of(version)
    if split == parts.splitting == OWN_TEST_FILE:
        return [True] * len(test)
    found = splits.find(split)
    if found is None:
        return None
    lent = frozenset[str]() if version.lineage is None else frozenset(version.lineage.lent)
    calls_test = found.calls_test(test.texts)
    return [is_test and label not in lent for is_test, label in zip(calls_test, test.labels, strict=True)]


def known_rows(version: ModelVersion, parts: Parts, source: FileSource | TopicSource) -> list[bool] | None:
    """Which of this rank's test rows the snapshot of ``version`` held; None when it was trained on something else."""
    lineage = version.lineage
    if lineage is None or not isinstance(source, TopicSource) or lineage.source != source.topic or not lineage.offsets:
        return None
    ends = {one.partition: one.end for one in lineage.offsets}
    return [offset < ends.get(partition, 0) for partition, offset in parts.test_places]


def _split_of(version: ModelVersion) -> str | None:
    return None if version.lineage is None else version.lineage.split


def _all_told(parts: Sequence[Sequence[bool] | None]) -> tuple[bool, ...] | None:
    told = [part for part in parts if part is not None]
    return _joined(told) if len(told) == len(parts) else None


def _joined(parts: Sequence[Sequence[T]]) -> tuple[T, ...]:
    return tuple(one for part in parts for one in part)
