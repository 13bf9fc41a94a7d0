"""Teachers for tests of the labeller: what they say is a plain function that the test can compute too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from headrace.labeller.teachers.interface import Failure, Identity, SoftLabels, Spent, Tell, silent

LABELS = ("delivery", "refund")


def label_of(text: str) -> str:
    return "refund" if "money" in text else "delivery"


class PlainTeacher:
    """Gives the label of ``says``, sure of it; each text costs ``price``. ``before`` is awaited before each call."""

    batch = 8
    labels = LABELS

    def __init__(
        self,
        says: Callable[[str], str | Failure] = label_of,
        *,
        price: float = 0.01,
        before: Callable[[], object] = lambda: None,
        version: str = "plain-1",
    ) -> None:
        self.says = says
        self.price = price
        self.before = before
        self.identity = Identity("plain", version)
        self.asked: list[str] = []
        self.calls = 0

    def within(self, texts: Sequence[str]) -> Spent:
        return Spent(calls=1, cost=self.price * len(texts))

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        del tell
        self.calls += 1
        waits = self.before()
        if asyncio.iscoroutine(waits):
            await waits
        self.asked += texts
        scores = np.zeros((len(texts), len(LABELS)), np.float32)
        failures: dict[int, Failure] = {}
        for place, text in enumerate(texts):
            said = self.says(text)
            if isinstance(said, Failure):
                failures[place] = said
            else:
                scores[place, LABELS.index(said)] = 0.9
                scores[place, 1 - LABELS.index(said)] = 0.1
        return SoftLabels(scores, failures, self.within(texts))

    async def close(self) -> None:
        """Nothing is held."""
