"""Which labels are probably wrong: confident learning over scores that rows got from fits that had not learnt them.

A class is taken to be true of a row where its score reaches the mean score that the class has among the rows given it.
Counting rows by the label given and the class taken to be true estimates the joint distribution of both, however much
surer the fit is of one class than of another. It says how many labels of each class are wrong, and the rows of the
class whose own label has the lowest scores are the suspects. Source: Northcutt, Jiang and Chuang, Confident Learning:
Estimating Uncertainty in Dataset Labels, Journal of Artificial Intelligence Research 70, 2021, where this is "prune by
class". As in their library, a row whose given label has the best score is no suspect. Of their other ways the rows
beside the diagonal of the joint, and the order by margin, find fewer: docs/benchmarks.md has the figures.

The scores are those of the wide part alone, fitted to four fifths of the rows and asked about the last one, five times
(:func:`out_of_fold`). The whole network takes ten times as long and finds little more.

It is also a program (``python -m headrace.learning.suspects``), for who must not be held up by the fits: it takes an
:class:`Asked` as JSON on its standard input, and gives an :class:`Outcome`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.files import DatasetError
from headrace.files.annotations import Doubted
from headrace.learning.data.features import fit_wide_part, follow_lengths, prepare
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Split, whole
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Alone
from headrace.learning.doubting import SCORER, SOURCE, Asked, Found, Labelled, Outcome
from headrace.learning.fit.blend import fit_scale
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.teaching import cross_folds
from headrace.learning.fit.wide import wide_logits

FOLDS = 5
MOST_CELLS = 2**28
"""Scores that are held at most, rows times classes: 1 GiB, of which some three are needed."""
_NO_ROWS = Rows((), ())
_AT_ONCE = 2**22
# A mean of equal scores may come out above them.
_TOLERANCE = 1e-6


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """The label of a row that is probably wrong.

    ``row``, ``given`` and ``likely`` are places among rows and classes, with the scores of both, in [0, 1]. ``joint``
    estimates the share of all rows that are ``likely`` and were given ``given``; 0 where no row is sure of it.
    """

    row: int
    given: int
    likely: int
    given_score: float
    likely_score: float
    joint: float

    @property
    def margin(self) -> float:
        """How far the likely label is before the given one, above 0."""
        return self.likely_score - self.given_score


class Joint(msgspec.Struct, frozen=True):
    """``wrong`` float64[C]: how many of the rows of each given label are of another class, by the estimate; ``shares``
    by (given, true): what share of all rows each pair beside the diagonal is.
    """

    wrong: NDArray[np.float64]
    shares: dict[tuple[int, int], float]


def estimate_joint(scores: NDArray[np.float32], given: NDArray[np.int64]) -> Joint:
    """The joint distribution of given and true labels; arguments as :func:`find_suspects` has them."""
    rows, classes = scores.shape
    counts = np.bincount(given, minlength=classes)
    own = np.bincount(given, weights=scores[np.arange(rows), given], minlength=classes)
    # What a class has to reach: its mean score among the rows given it.
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1) - _TOLERANCE, np.inf)
    true = np.full(rows, -1)
    step = max(1, _AT_ONCE // max(1, classes))
    for first in range(0, rows, step):
        block = scores[first : first + step]
        reaching = np.where(block >= thresholds, block, -1)
        best = reaching.argmax(axis=1)
        true[first : first + step] = np.where(reaching[np.arange(len(block)), best] >= 0, best, -1)
    sure = true >= 0
    pairs, found = np.unique(given[sure] * classes + true[sure], return_counts=True)
    of_given = np.bincount(given[sure], minlength=classes)
    # Made to have as many rows of each given label as there are.
    labels, trues = pairs // classes, pairs % classes
    calibrated = found / of_given[labels] * counts[labels]
    beside = labels != trues
    wrong = np.bincount(labels[beside], weights=calibrated[beside], minlength=classes)
    named = zip(labels[beside].tolist(), trues[beside].tolist(), (calibrated[beside] / rows).tolist(), strict=True)
    return Joint(wrong.astype(np.float64), {(label, other): share for label, other, share in named})


def find_suspects(scores: NDArray[np.float32], given: NDArray[np.int64]) -> list[Suspect]:
    """The suspects among n rows, those whose own label has the lowest score first, of equal ones the first row.

    ``scores`` float32[n, C]: a row sums to 1, and comes from a fit that has not learnt it. ``given`` int64[n]: the
    place of each row's label among the C classes. Raises ValueError for other shapes.
    """
    if scores.ndim != 2 or given.shape != scores.shape[:1]:
        raise ValueError(f"scores of shape {scores.shape} are none for labels of shape {given.shape}")
    if not scores.size:
        return []
    rows = np.arange(len(given))
    own, best = scores[rows, given], scores.argmax(axis=1)
    joint = estimate_joint(scores, given)
    order = np.lexsort((rows, own, given))
    begins = np.searchsorted(given[order], np.arange(scores.shape[1]))
    rank = np.empty(len(given), np.int64)
    rank[order] = rows - begins[given[order]]
    chosen = np.flatnonzero((rank < np.rint(joint.wrong)[given]) & (own < scores[rows, best]))
    return [
        Suspect(
            row=row,
            given=int(given[row]),
            likely=int(best[row]),
            given_score=float(own[row]),
            likely_score=float(scores[row, best[row]]),
            joint=joint.shares.get((int(given[row]), int(best[row])), 0.0),
        )
        for row in chosen[np.argsort(own[chosen], kind="stable")].tolist()
    ]


class OutOfFold(msgspec.Struct, frozen=True, kw_only=True):
    """What fits said of rows that they had not learnt.

    ``places`` are those of the n rows that were asked about, ``scores`` float32[n, C] over the sorted ``labels``,
    ``given`` int64[n] the places of their own labels. ``alone``: rows that no fit could be asked about, because no row
    of another fold has their label.
    """

    places: tuple[int, ...]
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    given: NDArray[np.int64]
    alone: int


def out_of_fold(
    rows: Rows, recipe: Recipe, tell: Callable[[int, int], None] = lambda *_: None, *, folds: int = FOLDS
) -> OutOfFold:
    """Score clean ``rows`` by the wide part, each by a fit to the other folds; ``tell`` is told how many fits are done.

    A row's fold depends on the words of its text alone, as in a training's cross-validation, so equal texts are never
    on both sides. The scores are calibrated by one factor on all rows. Raises DatasetError where no two labels are
    left, or the scores would take too much memory.
    """
    places = _learnable(rows, folds)
    kept = rows.take(places)
    labels = tuple(sorted(set(kept.labels)))
    if len(labels) < 2:
        raise DatasetError(
            "labels can be doubted where there are two of them at least, each of several texts; here "
            + ("is one" if labels else "is none")
        )
    if len(kept) * len(labels) > MOST_CELLS:
        raise DatasetError(
            f"{len(kept):,} rows of {len(labels):,} labels are too many to doubt at once: at most "
            f"{MOST_CELLS // len(labels):,} rows of so many labels"
        )
    parts = whole(Split(train=kept, valid=_NO_ROWS, test=_NO_ROWS, held_out=0))
    exchange = Alone()
    recipe, _ = follow_lengths(recipe, parts, exchange, follow=True)
    logits = torch.zeros((len(kept), len(labels)))
    divided = cross_folds(parts, folds, exchange)
    for number, fold in enumerate(divided, 1):
        if len(fold.valid):
            material = prepare(fold.train, labels, recipe, exchange)
            asked = prepare(fold.valid, labels, recipe, exchange, material.vocabulary)
            logits[torch.from_numpy(~fold.known)] = wide_logits(
                *fit_wide_part(material, recipe, exchange), asked.features()
            )
        tell(number, len(divided))
    numbers = {label: number for number, label in enumerate(labels)}
    given = np.fromiter((numbers[label] for label in kept.labels), np.int64, len(kept))
    scale = fit_scale(logits, torch.from_numpy(given))
    scores = torch.softmax(scale * logits, dim=1).numpy()
    return OutOfFold(places=tuple(places), labels=labels, scores=scores, given=given, alone=len(rows) - len(places))


def _learnable(rows: Rows, folds: int) -> list[int]:
    """The places of the rows whose label rows of another fold have too."""
    whole_rows = whole(Split(train=rows, valid=_NO_ROWS, test=_NO_ROWS, held_out=0))
    asked = [~fold.known for fold in cross_folds(whole_rows, folds, Alone())]
    return np.flatnonzero(np.any(asked, axis=0)).tolist()


def doubt(given: Sequence[Labelled], tell: Callable[[str], None] = lambda _: None) -> Found:
    """Doubt the labels of rows as a training would take them. Raises DatasetError where nothing can be doubted."""
    cleaned = clean(Rows(tuple(one.text for one in given), tuple(one.label for one in given)))
    recipe = Recipe()
    torch.set_num_threads(recipe.threads)
    tell(f"scoring {quantity(len(cleaned.places), 'label')}, each by a fit to others")
    scored = out_of_fold(cleaned.rows, recipe)
    found = []
    for one in find_suspects(scored.scores, scored.given):
        row = given[cleaned.places[scored.places[one.row]]]
        label, likely = scored.labels[one.given], scored.labels[one.likely]
        rows = round(one.joint * len(scored.given))
        pair = f"; about {quantity(rows, 'row')} given {label} may be {likely}" if rows else ""
        # Without its time a label of the random slice would count as one that versions have not seen.
        kept = row.source is not None and row.labelled_at_ms is not None
        found.append(
            Doubted(
                text=row.text,
                given=label,
                answered=likely,
                given_score=one.given_score,
                score=one.likely_score,
                joint=one.joint,
                why=f"{label} {one.given_score:.3f}, {likely} {one.likely_score:.3f}{pair}",
                version=SCORER,
                source=row.source if kept and row.source else SOURCE,
                labelled_at_ms=row.labelled_at_ms if kept else None,
                number=row.number,
                replaces=row.id,
            )
        )
    return Found(suspects=found, rows=len(scored.given), dropped=cleaned.dropped(), alone=scored.alone)


def main() -> None:
    """Answer one :class:`Asked` on standard input by an :class:`Outcome`, at a low priority."""
    os.nice(10)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    try:
        found = doubt(asked.labels)
        outcome = Outcome(msgspec.structs.replace(found, suspects=found.suspects[: asked.count]))
    except UserError as error:
        outcome = Outcome(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
