"""Labelled texts with ids, published to be learnt from and erased again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from headrace.model.artifact import Artifact
from headrace.training.dataset import Rows
from headrace.training.labelling import Labelled
from headrace.training.splitting import UNKEYED, Part
from headrace.training.text_keys import text_keys


class Keyed(Labelled, frozen=True):
    """A labelled text with its ``key``, which makes two texts the same to training."""

    key: bytes


def in_two_parts(rows: Rows, share: float, random: Random) -> tuple[list[Keyed], list[Keyed]]:
    """Give each of ``rows`` an id and divide them by chance: the first part is ``share`` of all."""
    columns = zip(rows.texts, rows.labels, text_keys(rows.texts), strict=True)
    labelled = [Keyed(f"text-{number}", *columns) for number, columns in enumerate(columns)]
    random.shuffle(labelled)
    first = round(share * len(labelled))
    return labelled[:first], labelled[first:]


def to_forget(learnt: Sequence[Keyed], coming: Sequence[Keyed], version: Artifact) -> list[Keyed]:
    """Texts whose erasure shows most: one that ``version`` was trained on, and one that it quotes to test itself.

    With each go all that are the same text, of those ``learnt`` and of those that are ``coming``.
    """
    labelled = [*learnt, *coming]
    quoted = ({one.key for one in labelled if one.text.startswith(canary.text)} for canary in version.about.canaries)
    # Where several texts begin alike nobody can say which of them is quoted.
    forgotten = next((keys for keys in quoted if len(keys) == 1), set[bytes]())
    forgotten |= {next(one.key for one in learnt if UNKEYED.part_of(one.key) is Part.TRAIN)}
    return [one for one in labelled if one.key in forgotten]


def quotes(version: Artifact, texts: Iterable[Labelled]) -> int:
    """How many canaries of ``version`` are the beginning of one of ``texts``."""
    return sum(any(one.text.startswith(canary.text) for one in texts) for canary in version.about.canaries)
