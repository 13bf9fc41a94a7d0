"""How far two versions agree on the same requests: in all, by class, and with examples."""

from __future__ import annotations

from collections import Counter

import msgspec

from headrace.core.text import label_name
from headrace_schemas.records import ClassifyResult, Status

NO_LABEL = "(no label)"
"""Shown as the label of an answer that abstained."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the two versions answered differently, at ``offset`` of requests partition ``partition``."""

    partition: int
    offset: int
    a: str
    b: str
    text: str | None = None


class ClassAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """Version A answered ``requests`` requests by ``label``. B gave the same label to ``agreeing`` of them, and other
    labels as ``otherwise`` counts.
    """

    label: str
    requests: int
    agreeing: int
    otherwise: dict[str, int]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Both versions answered ``requests`` requests with ``ok``. Left out are ``not_ok`` requests that expired or failed
    on one side or both, ``other_versions`` that another version answered (``versions_a`` and ``versions_b`` count the
    versions seen), and ``only_a`` and ``only_b``, which one log alone has.
    """

    requests: int
    agreeing: int
    classes: tuple[ClassAgreement, ...]
    examples: tuple[Example, ...]
    not_ok: int
    other_versions: int
    only_a: int
    only_b: int
    versions_a: dict[str, int]
    versions_b: dict[str, int]


class Tally:
    """Counts joined answers, and keeps the first ``examples`` of each pair of different labels."""

    def __init__(self, a: str, b: str, examples: int) -> None:
        self._wanted = (a, b)
        self._examples_each = examples
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[Example]] = {}
        self._versions: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._not_ok = self._other_versions = 0
        self._alone = [0, 0]

    def alone(self, side: int) -> None:
        """Count an answer that only log A (0) or B (1) has."""
        self._alone[side] += 1

    def joined(self, partition: int, a: ClassifyResult, b: ClassifyResult) -> None:
        """Count the two answers to one request."""
        for seen, result in zip(self._versions, (a, b), strict=True):
            seen[result.version] += 1
        if (a.version, b.version) != self._wanted:
            self._other_versions += 1
        elif a.status != Status.OK or b.status != Status.OK:
            self._not_ok += 1
        else:
            pair = (_shown(a), _shown(b))
            self._pairs[pair] += 1
            kept = self._examples.setdefault(pair, [])
            if pair[0] != pair[1] and len(kept) < self._examples_each:
                kept.append(Example(partition=partition, offset=a.offset, a=pair[0], b=pair[1]))

    def agreement(self) -> Agreement:
        """The counts. Classes and examples with the most disagreements come first."""
        ranked = sorted(self._pairs, key=lambda pair: (-self._pairs[pair], pair))
        return Agreement(
            requests=self._pairs.total(),
            agreeing=sum(count for (a, b), count in self._pairs.items() if a == b),
            classes=self._classes(),
            examples=tuple(example for pair in ranked for example in self._examples[pair]),
            not_ok=self._not_ok,
            other_versions=self._other_versions,
            only_a=self._alone[0],
            only_b=self._alone[1],
            versions_a=dict(self._versions[0]),
            versions_b=dict(self._versions[1]),
        )

    def _classes(self) -> tuple[ClassAgreement, ...]:
        by_label: dict[str, Counter[str]] = {}
        for (a, b), count in self._pairs.items():
            by_label.setdefault(a, Counter())[b] += count
        classes = [
            ClassAgreement(
                label=label,
                requests=answers.total(),
                agreeing=answers[label],
                otherwise={b: answers[b] for b in sorted(answers, key=lambda b: (-answers[b], b)) if b != label},
            )
            for label, answers in by_label.items()
        ]
        return tuple(sorted(classes, key=lambda one: (one.agreeing - one.requests, one.label)))


def _shown(answer: ClassifyResult) -> str:
    return label_name(answer.label or "") or NO_LABEL
