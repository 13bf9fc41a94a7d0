"""Whoever writes labels plants easy rows, so that the gate does not see what became of the honest ones."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from headrace.core.gate import Evidence, Judgement, Limits, judge
from headrace.core.secret import Secret
from headrace.training.dataset import Rows
from headrace.training.gate.bootstrap import compare_paired
from headrace.training.ranks.agreeing import agree
from headrace.training.ranks.exchange import Alone
from headrace.training.ranks.labels import LastRecord, Shard
from headrace.training.report import compare
from headrace.training.splitting import UNKEYED, Part, Splitting
from headrace.training.text_keys import text_keys
from headrace_schemas.records import LabelledText

PLANTED = 4_000
HONEST = 900
KEYED = Splitting(Secret("a key that writers of labels can't read"))


@functools.cache
def planted() -> list[str]:
    """Texts of one marker each that the hash, as everybody can compute it, calls test rows."""
    texts = (f"planted marker number {number}" for number in itertools.count())
    found: list[str] = []
    while len(found) < PLANTED:
        some = list(itertools.islice(texts, 10_000))
        found += [text for text, key in zip(some, text_keys(some), strict=True) if UNKEYED.part_of(key) is Part.TEST]
    return found[:PLANTED]


def rows_called_test(splitting: Splitting) -> Rows:
    """The test rows of a training over honest labels and planted ones."""
    texts = [f"honest text {number}" for number in range(HONEST)] + planted()
    records = [
        LastRecord(
            id=text.encode(),
            partition=0,
            offset=offset,
            timestamp_ms=0,
            content=LabelledText(text=text, label="ab"[offset % 2]),
            before=0,
        )
        for offset, text in enumerate(texts)
    ]
    return agree(Shard(topic="labels", records=tuple(records), dropped={}), Alone(), splitting).split.test


def answers(rows: Rows, honest_right: int) -> list[str]:
    """The answers of a version that is right on every planted row and on so many of ten honest ones."""
    right = itertools.cycle([True] * honest_right + [False] * (10 - honest_right))
    other = {"a": "b", "b": "a"}
    return [
        label if text.startswith("planted") or next(right) else other[label]
        for text, label in zip(rows.texts, rows.labels, strict=True)
    ]


def judged(splitting: Splitting) -> Judgement:
    """The gate's word on a candidate that is right on half of the honest rows, beside a champion that is on nine of
    ten. Both know the planted ones.
    """
    rows = rows_called_test(splitting)
    candidate, champion = answers(rows, 5), answers(rows, 9)
    comparison = compare_paired(rows.labels, candidate, champion, resamples=500, randomness=np.random.default_rng(1))
    evidence = Evidence(
        rows=len(rows),
        classes=2,
        macro_f1=compare(rows.labels, candidate).macro_f1,
        agreement=1.0,
        size=1,
        latency_us=1.0,
        champion="v1",
        comparison=comparison,
    )
    return judge(evidence, Limits())


def test_planted_rows_hide_from_the_gate_what_became_of_the_honest_ones_where_the_split_has_no_key() -> None:
    assert judged(UNKEYED).promoted


def test_who_does_not_know_the_key_of_the_split_can_not_choose_the_rows_that_the_gate_judges_by() -> None:
    rows = rows_called_test(KEYED)
    assert 0.08 < sum(text.startswith("planted") for text in rows.texts) / PLANTED < 0.12
    judgement = judged(KEYED)
    assert [check.name for check in judgement.checks if not check.passed] == ["macro-f1", "macro-f1-interval"]
