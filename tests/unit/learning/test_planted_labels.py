"""Whoever writes labels plants easy rows, so that the gate does not see what became of the honest ones."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from headrace.core.fields import Secret
from headrace.core.gate import Comparison, Decision, Evidence, Limits, Rival, decide_by
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import LastRecord, Shard
from headrace.learning.data.split import UNKEYED, Part, Splitting
from headrace.learning.data.validation import text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.merge import merge_labels
from headrace.learning.evaluate import by_chance, compare, compare_paired
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
    return merge_labels(Shard(topic="labels", records=tuple(records), dropped={}), Alone(), splitting).split.test


def answers(rows: Rows, honest_right: int) -> list[str]:
    """The answers of a version that is right on every planted row and on so many of ten honest ones."""
    right = itertools.cycle([True] * honest_right + [False] * (10 - honest_right))
    other = {"a": "b", "b": "a"}
    return [
        label if text.startswith("planted") or next(right) else other[label]
        for text, label in zip(rows.texts, rows.labels, strict=True)
    ]


def judged(rows: Rows, candidate: list[str], champion: list[str], known: list[bool]) -> Decision:
    """The gate's word on a candidate beside a champion, whose snapshot held the rows that are ``known``."""

    def beside(chosen: list[bool]) -> Comparison | None:
        places = [place for place, is_chosen in enumerate(chosen) if is_chosen]
        if not places:
            return None
        truth, ours, theirs = ([of[place] for place in places] for of in (rows.labels, candidate, champion))
        return compare_paired(truth, ours, theirs, resamples=500, randomness=np.random.default_rng(1))

    whole = beside([True] * len(rows))
    assert whole is not None
    evidence = Evidence(
        rows=len(rows),
        classes=len(set(rows.labels)),
        learnt=len(set(rows.labels)),
        untested=(),
        macro_f1=compare(rows.labels, candidate).macro_f1,
        interval=(0.0, 1.0),
        by_chance=by_chance(rows.labels, candidate, resamples=100, randomness=np.random.default_rng(1)),
        agreement=1.0,
        size=1,
        latency_us=1.0,
        champion=Rival(
            version="v1", comparison=whole, known=beside(known), new=beside([not is_known for is_known in known])
        ),
    )
    return decide_by(evidence, Limits())


def refusals(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def judged_once_all_are_known(splitting: Splitting) -> Decision:
    """A candidate that is right on half of the honest rows, beside a champion that is on nine of ten. Both know the
    planted ones, which came before the champion did.
    """
    rows = rows_called_test(splitting)
    return judged(rows, answers(rows, 5), answers(rows, 9), [True] * len(rows))


def test_planted_rows_hide_from_the_gate_what_became_of_the_honest_ones_where_the_split_has_no_key() -> None:
    assert judged_once_all_are_known(UNKEYED).promoted


def test_who_does_not_know_the_key_of_the_split_can_not_choose_the_rows_that_the_gate_judges_by() -> None:
    rows = rows_called_test(KEYED)
    assert 0.08 < sum(text.startswith("planted") for text in rows.texts) / PLANTED < 0.12
    assert refusals(judged_once_all_are_known(KEYED)) == ["macro-f1", "macro-f1-interval"]


@pytest.mark.parametrize("splitting", [UNKEYED, KEYED])
def test_planted_rows_of_classes_that_the_champion_can_not_know_do_not_outweigh_the_rows_that_it_knew(
    splitting: Splitting,
) -> None:
    rows = rows_called_test(splitting)
    planted_rows = [text.startswith("planted") for text in rows.texts]
    labels = ["planted" if is_planted else label for is_planted, label in zip(planted_rows, rows.labels, strict=True)]
    rows = Rows(rows.texts, tuple(labels))
    champion = ["a" if is_planted else given for is_planted, given in zip(planted_rows, answers(rows, 9), strict=True)]
    decision = judged(rows, answers(rows, 6), champion, [not is_planted for is_planted in planted_rows])
    assert refusals(decision) == ["macro-f1-known"]
