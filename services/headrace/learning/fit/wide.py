"""The wide part: a linear map over hashed words and bigrams, and its fit.

The fit starts from Naive Bayes log-count ratios; logistic regression then stays near them. Source: Wang and Manning,
Baselines and Bigrams: Simple, Good Sentiment and Topic Classification, ACL 2012. They have two classes; here every
class has its ratios against all the others, and one softmax joins them.

Where there are many classes, each has few of the features. Then only the weights of features that a class has are
fitted, and the others stay at their ratios: the fitted vector is as long as the texts, and not as features times
classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import WideRecipe
from headrace.model.compiling import kernel
from headrace.model.network import FIRST_WORD_ROW, UNKNOWN_ROW, adjacent, pair_hashes, rows_of, word_rows


class WideFeatures(NamedTuple):
    """The words and kept bigrams of texts, one entry an occurrence.

    ``columns`` int64[entries]: row r of ``words`` is column r, that of words that are not kept UNKNOWN_ROW, and kept
    bigram j is column V + 2 + j. Text i has ``columns[starts[i]:starts[i + 1]]``, each weighing ``scales[i]``, which is
    1 / sqrt(its words), at most 1.
    """

    columns: NDArray[np.int64]
    starts: NDArray[np.int64]
    scales: NDArray[np.float32]


def wide_features(
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    word_hashes: NDArray[np.uint64],
    bigram_hashes: NDArray[np.uint64],
) -> WideFeatures:
    """Find the features of texts that lie end to end: text i has the words ``hashes[starts[i]:starts[i + 1]]``.

    ``word_hashes`` uint64[V] and ``bigram_hashes`` uint64[B] are what the network keeps.
    """
    words = np.diff(starts)
    text_of = np.repeat(np.arange(len(words)), words)
    rows = word_rows(hashes, word_hashes)
    pairs = rows_of(pair_hashes(hashes), bigram_hashes)
    found = np.flatnonzero((pairs >= 0) & adjacent(starts))
    columns = np.concatenate([rows, pairs[found] + len(word_hashes) + FIRST_WORD_ROW])
    owners = np.concatenate([text_of, text_of[found]])
    order = np.argsort(owners, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(words)))])
    return WideFeatures(columns[order], ends, (1 / np.sqrt(np.maximum(words, 1))).astype(np.float32))


@kernel
def _sum_rows(columns, starts, scales, weights, sums):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for label in range(weights.shape[1]):
                sums[text, label] += scales[text] * weights[columns[entry], label]


@kernel
def _add_to_rows(columns, starts, scales, upstream, d_weights):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for label in range(upstream.shape[1]):
                d_weights[columns[entry], label] += scales[text] * upstream[text, label]


@kernel
def _add_to_cells(columns, starts, scales, upstream, firsts, labels, slopes):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for cell in range(firsts[columns[entry]], firsts[columns[entry] + 1]):
                slopes[cell] += scales[text] * upstream[text, labels[cell]]


class Cells(NamedTuple):
    """Some cells of a table of weights, by rising place: those of column r are ``firsts[r]`` to ``firsts[r + 1]``, and
    ``labels`` int64[cells] says of each which class it is of. ``places`` int64[cells] count along the flat table.
    """

    places: NDArray[np.int64]
    firsts: NDArray[np.int64]
    labels: NDArray[np.int64]


def cells_at(places: NDArray[np.int64], columns: int, labels: int) -> Cells:
    """The cells at these rising ``places`` of a table of so many ``columns`` and ``labels``."""
    return Cells(places, np.searchsorted(places, np.arange(columns + 1) * labels), places % labels)


def add_slopes(features: WideFeatures, upstream: Tensor, slopes: Tensor, cells: Cells | None = None) -> None:
    """Add to ``slopes`` what ``upstream`` float32[texts, C], the logits' gradient, is for weights float32[columns, C].

    With ``cells``, ``slopes`` float32[cells] are of these weights alone.
    """
    own = features.columns, features.starts, features.scales, upstream.contiguous().numpy()
    if cells is None:
        _add_to_rows(*own, slopes.numpy())
    else:
        _add_to_cells(*own, cells.firsts, cells.labels, slopes.numpy())


def texts_of(features: WideFeatures, first: int, end: int) -> WideFeatures:
    """The features of texts ``first`` to ``end`` (excluded)."""
    starts = features.starts[first : end + 1]
    return WideFeatures(features.columns[starts[0] : starts[-1]], starts - starts[0], features.scales[first:end])


class _SumRows(torch.autograd.Function):
    """``float32[texts, C]`` from weights ``float32[columns, C]``: the scaled sum of each text's rows."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: WideFeatures) -> Tensor:
        ctx.features, ctx.shape = features, weights.shape
        sums = np.zeros((len(features.scales), weights.shape[1]), np.float32)
        _sum_rows(features.columns, features.starts, features.scales, weights.numpy(), sums)
        return torch.from_numpy(sums)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        d_weights = torch.zeros(ctx.shape)
        add_slopes(ctx.features, upstream[0], d_weights)
        return d_weights, None


def wide_logits(weights: Tensor, bias: Tensor, features: WideFeatures) -> Tensor:
    """``float32[texts, C]`` from ``weights`` float32[V + 2 + B, C] and ``bias`` float32[C]."""
    sums: Tensor = _SumRows.apply(weights, features)
    return sums + bias


# A share of a text in which every feature is seen and of one in which it is not, so that no ratio is infinite. Of a
# hundred rows a whole one says more than the rows do (docs/benchmarks.md).
_SMOOTHING = 0.3
FITTED_WHOLE = 180
"""Classes up to which every weight is fitted; above it a weight only where the class has the feature."""
HISTORY = 8
"""Steps that L-BFGS remembers, each by two vectors as long as what is fitted."""
# Of many classes a step takes the longer, and the fit has settled by then.
_STEPS_OF_MANY = 16
LOGITS_AT_ONCE = 2**24
"""Logits of texts that are held at once."""
_CELLS_AT_ONCE = 2**20


Targets = NDArray[np.int64] | NDArray[np.float32]
"""Of each text the index of its class, or a row of what each class gets of it, which sums to what the text counts."""


class WideWeights(NamedTuple):
    """``weights`` float32[columns, C] for the columns of WideFeatures, and ``bias`` float32[C]."""

    weights: torch.Tensor
    bias: torch.Tensor


def class_counts(
    features: WideFeatures, targets: Targets, columns: int, labels: int, exchange: Exchange
) -> NDArray[np.int64] | NDArray[np.float32]:
    """``[columns, labels]``: texts of the class that have the feature, however often they have it; of soft targets
    float32, and else int64.
    """
    texts = np.repeat(np.arange(len(targets)), np.diff(features.starts))
    present = np.unique(texts * columns + features.columns)
    if targets.dtype != np.int64:
        starts = np.searchsorted(present, np.arange(len(targets) + 1) * columns)
        once = WideFeatures(present % columns, starts, np.ones(len(targets), np.float32))
        soft = torch.zeros(columns, labels)
        add_slopes(once, torch.from_numpy(targets), soft)
        return exchange.sum(soft.numpy())
    cells = present % columns * labels + targets[present // columns]
    return exchange.sum(np.bincount(cells, minlength=columns * labels)).reshape(columns, labels)


def log_count_ratios(counts: NDArray[np.int64] | NDArray[np.float32]) -> torch.Tensor:
    """``float32[columns, labels]``: ln of (share of the feature within the class / its share within the others)."""
    columns, labels = counts.shape
    # Of human rows whole numbers, so these sums are exact in any order.
    of_class = counts.sum(axis=0, dtype=np.float64) + columns * _SMOOTHING
    of_others = of_class.sum() - columns * labels * _SMOOTHING + columns * 2 * _SMOOTHING - of_class
    ratios = np.empty(counts.shape, np.float32)
    rows = max(1, _CELLS_AT_ONCE // labels)
    for first in range(0, columns, rows):
        inside = counts[first : first + rows].astype(np.float64) + _SMOOTHING
        outside = inside.sum(axis=1, keepdims=True) - labels * _SMOOTHING + 2 * _SMOOTHING - inside
        ratios[first : first + rows] = np.log(inside / of_class) - np.log(outside / of_others)
    return torch.from_numpy(ratios)


def fit_wide(
    features: WideFeatures,
    targets: Targets,
    columns: int,
    labels: int,
    recipe: WideRecipe,
    exchange: Exchange,
) -> WideWeights:
    """Fit the weights of ``columns`` features for ``labels`` classes to the ``targets`` of all ranks' texts.

    A weight is a ratio times a factor; the factors start at ``recipe.prior`` and pay for leaving it. The ratio of a
    word that is not kept is taken ``recipe.unknown`` times. The loss is convex and fitted on all texts at once by
    L-BFGS, so there is no learning rate, no order of texts and no seed. Above FITTED_WHOLE classes the factors of
    features that a class never has stay at the prior.

    Rank 0 alone runs L-BFGS, and every rank answers for its own texts: run on all of them, it could take another path
    on a machine of another kind, whose sums end in other bits.
    """
    counts = class_counts(features, targets, columns, labels, exchange)
    ratios = log_count_ratios(counts)
    # Where all words of the rows are kept it is never fitted, and says that a word unseen is likelier of the classes of
    # which fewer words were seen.
    ratios[UNKNOWN_ROW] *= recipe.unknown
    cells = None if labels <= FITTED_WHOLE else cells_at(np.flatnonzero(counts), columns, labels)
    del counts
    counted = len(targets) if targets.dtype == np.int64 else targets.sum(dtype=np.float64)
    rows = float(sum(exchange.gather(float(counted), float)))
    table = _Table(ratios, cells, recipe.prior)
    slopes = _Slopes(table, torch.from_numpy(targets), features, rows, exchange)
    start = torch.cat([torch.full((table.fitted,), recipe.prior), torch.zeros(labels)])
    steps = recipe.iterations if cells is None else min(recipe.iterations, _STEPS_OF_MANY)
    found = _minimize(slopes, start, recipe, steps, table.fitted) if exchange.rank == 0 else slopes.serve(start)
    return WideWeights(table.weights(found[: table.fitted]), found[table.fitted :].clone())


class _Table:
    """The weights as ``ratios`` times factors, of which those of ``cells`` are fitted, or all."""

    def __init__(self, ratios: torch.Tensor, cells: Cells | None, prior: float) -> None:
        self._ratios, self._cells, self.labels = ratios, cells, ratios.shape[1]
        if cells is None:
            self.fitted = ratios.numel()
            return
        self.fitted = len(cells.places)
        self._places = torch.from_numpy(cells.places)
        self._fitted_ratios = ratios.view(-1)[self._places]
        self._weights = ratios.mul_(prior)

    def weights(self, factors: torch.Tensor) -> torch.Tensor:
        """``float32[columns, C]`` by ``factors`` float32[fitted]; of cells it is one table, written anew each time."""
        if self._cells is None:
            return factors.view_as(self._ratios) * self._ratios
        self._weights.view(-1)[self._places] = factors * self._fitted_ratios
        return self._weights

    def no_slopes(self) -> torch.Tensor:
        """Zeros, for :meth:`add` to add to."""
        return torch.zeros_like(self._ratios) if self._cells is None else torch.zeros(self.fitted)

    def add(self, slopes: torch.Tensor, features: WideFeatures, upstream: torch.Tensor) -> None:
        """Add the gradient of the weights."""
        add_slopes(features, upstream, slopes, self._cells)

    def of_factors(self, slopes: torch.Tensor) -> torch.Tensor:
        """``float32[fitted]``: the gradient of the factors, from that of the weights, which is overwritten."""
        return slopes.mul_(self._ratios if self._cells is None else self._fitted_ratios).view(-1)


def _minimize(slopes: _Slopes, start: torch.Tensor, recipe: WideRecipe, steps: int, weights: int) -> torch.Tensor:
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=steps, history_size=HISTORY, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        value, slope = slopes.at(point.detach())
        away = point.detach()[:weights] - recipe.prior
        slope[:weights] += recipe.pull / slopes.rows * away
        point.grad = slope
        return torch.as_tensor(value + recipe.pull * float(away.square().sum()) / (2 * slopes.rows))

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return slopes.end(point.detach())


class _Slopes:
    """The mean cross entropy over the texts of all ranks, and its gradient, wherever rank 0 asks for it.

    A point is the factors, then the bias, in one vector.
    """

    def __init__(
        self, table: _Table, targets: torch.Tensor, features: WideFeatures, rows: float, exchange: Exchange
    ) -> None:
        self.rows = rows
        self._table, self._exchange = table, exchange
        at_once = max(1, LOGITS_AT_ONCE // table.labels)
        bounds = [0, *range(at_once, len(targets), at_once), len(targets)]
        self._blocks = [(texts_of(features, first, end), targets[first:end]) for first, end in pairwise(bounds)]

    def at(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        self._share(point, goes_on=True)
        return self._answer(point)

    def end(self, point: torch.Tensor) -> torch.Tensor:
        """Tell the others the result, which they return from :meth:`serve`."""
        self._share(point, goes_on=False)
        return point

    def serve(self, like: torch.Tensor) -> torch.Tensor:
        """Answer rank 0 until it has found the minimum, and return it. ``like`` has the shape of a point."""
        nothing = torch.zeros_like(like)
        while True:
            shared = self._share(nothing, goes_on=False)
            if not shared[-1]:
                return shared[:-1]
            self._answer(shared[:-1])

    def _share(self, point: torch.Tensor, *, goes_on: bool) -> torch.Tensor:
        # Only rank 0 adds anything but zeros, so the sum is what rank 0 says.
        message = torch.cat([point, torch.tensor([float(goes_on)])])
        return torch.from_numpy(self._exchange.sum(message.numpy()))

    def _answer(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        table = self._table
        weights, bias = table.weights(point[: table.fitted]), point[table.fitted :]
        slopes, of_bias, value = table.no_slopes(), torch.zeros_like(bias), torch.zeros(1)
        for features, targets in self._blocks:
            logits = wide_logits(weights, bias, features).requires_grad_()
            part = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / self.rows
            part.backward()  # type: ignore[no-untyped-call]
            assert logits.grad is not None  # noqa: S101 - it is a leaf of the sum
            table.add(slopes, features, logits.grad)
            of_bias += logits.grad.sum(dim=0)
            value += part.detach()
        own = torch.cat([table.of_factors(slopes), of_bias, value])
        total = torch.from_numpy(self._exchange.sum(own.numpy()))
        return float(total[-1]), total[:-1]
