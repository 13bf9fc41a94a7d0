"""The convolution: Kim's TextCNN over words in PyTorch, and its training.

The network is an embedding, filters of several widths, the maximum over time, and a linear head. A batch is flat: the
words of all texts lie end to end in one array and each text says where it starts. So no batch padding changes an
answer or costs time. Source: Kim, Convolutional Neural Networks for Sentence Classification, EMNLP 2014.

It is trained by one-cycle AdamW with word dropout, on one rank or on several. Each rank trains on its own rows, and
every few steps all ranks average their weights: a step takes milliseconds, and exchanging the gradient of every step
would take longer. Of the words' table only the rows are exchanged that some rank has touched since the last exchange.
Source: Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.learning.fit.wide import Targets
from headrace.model.compiling import kernel
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW, UNKNOWN_ROW


class WordParts(NamedTuple):
    """What words have in common: row r of ``words`` has the parts ``parts[starts[r]:starts[r + 1]]``.

    ``parts`` int64[entries], each below ``different``; ``starts`` int64[V + 3].
    """

    parts: NDArray[np.int64]
    starts: NDArray[np.int64]
    different: int


def no_parts(kept: int) -> WordParts:
    """Of ``kept`` words that have nothing in common."""
    return WordParts(np.empty(0, np.int64), np.zeros(kept + FIRST_WORD_ROW + 1, np.int64), 0)


class FlatBatch(NamedTuple):
    """Texts end to end: ``rows`` of the words int64[words], ``starts`` int64[texts], ``lengths`` int64[texts].

    Text i is ``rows[starts[i]:starts[i] + lengths[i]]``; between texts lie padding rows where a text is shorter than
    the widest window.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def flatten(texts: Sequence[NDArray[np.int64]], widest: int) -> FlatBatch:
    """Lay the word rows of ``texts`` end to end, each with at least ``widest`` rows of room."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(np.maximum(lengths, widest))
    starts = ends - np.maximum(lengths, widest)
    rows = np.full(int(ends[-1]) if len(texts) else 0, PADDING_ROW, np.int64)
    for text, start in zip(texts, starts, strict=True):
        rows[start : start + len(text)] = text
    return FlatBatch(rows, starts, lengths)


@kernel
def _pool(products, places, starts, windows, pooled, winners):  # type: ignore[no-untyped-def]
    # A row at a time, so that the inner loops run over neighbouring filters and are compiled to vector instructions.
    width, count = products.shape[1], products.shape[2]
    sums = np.empty(count, np.float32)
    for text in range(len(starts)):
        for window in range(starts[text], starts[text] + windows[text]):
            for filter_ in range(count):
                sums[filter_] = products[places[window], 0, filter_]
            for tap in range(1, width):
                for filter_ in range(count):
                    sums[filter_] += products[places[window + tap], tap, filter_]
            if window == starts[text]:
                pooled[text] = sums
                winners[text] = window
                continue
            for filter_ in range(count):
                better = sums[filter_] > pooled[text, filter_]
                winners[text, filter_] = window if better else winners[text, filter_]
                pooled[text, filter_] = sums[filter_] if better else pooled[text, filter_]


@kernel
def _pool_gradient(upstream, winners, places, words, filters, d_words, d_filters):  # type: ignore[no-untyped-def]
    # Each filter saw one window of each text, and after ReLU and dropout most of the upstream gradient is zero.
    count, width, dimensions = filters.shape
    for text in range(len(upstream)):
        for filter_ in range(count):
            slope = upstream[text, filter_]
            if slope == 0.0:
                continue
            for tap in range(width):
                word = places[winners[text, filter_] + tap]
                for axis in range(dimensions):
                    d_filters[filter_, tap, axis] += slope * words[word, axis]
                    d_words[word, axis] += slope * filters[filter_, tap, axis]


class _MaxOverTime(torch.autograd.Function):
    """Convolve and keep each filter's best window: (different words [U, D], filters [F, k, D]) -> [texts, F].

    Folded as in answering: each different word of the batch is multiplied with each tap once, and a window is a sum of
    k products, so a frequent word costs one matrix row however often it occurs. The way back is written by hand because
    only the winning windows have a gradient; autograd's own would cost twice the way forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        words: Tensor,
        filters: Tensor,
        places: NDArray[np.int64],
        starts: NDArray[np.int64],
        windows: NDArray[np.int64],
    ) -> Tensor:
        count, width, dimensions = filters.shape
        products = words @ filters.permute(2, 1, 0).reshape(dimensions, width * count)
        pooled = np.empty((len(starts), count), np.float32)
        winners = np.empty((len(starts), count), np.int64)
        _pool(products.view(-1, width, count).numpy(), places, starts, windows, pooled, winners)
        ctx.save_for_backward(words, filters)
        ctx.places, ctx.winners = places, winners
        return torch.from_numpy(pooled)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        words, filters = ctx.saved_tensors
        d_words, d_filters = torch.zeros_like(words), torch.zeros_like(filters)
        _pool_gradient(
            upstream[0].contiguous().numpy(),
            ctx.winners,
            ctx.places,
            words.numpy(),
            filters.numpy(),
            d_words.numpy(),
            d_filters.numpy(),
        )
        return d_words, d_filters, None, None, None


class TextCNN(nn.Module):
    """``forward(FlatBatch) -> float32[texts, C]`` logits. V kept words, D dimensions, F filters a width, C labels.

    With ``parts`` a word is its own vector and those of its n parts, each times 1 / sqrt(n). That is for training,
    where a rare word learns from others that are spelled alike; :meth:`word_vectors` gives the sums, and a network of
    plain words answers alike. Source: Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017.
    """

    def __init__(
        self,
        kept: int,
        labels: int,
        *,
        dimensions: int,
        filters: int,
        widths: Sequence[int],
        dropout: float,
        parts: WordParts | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.parts = parts or no_parts(kept)
        # Words, then parts. Sparse gradients: a step touches the rows of its own batch only, however many are kept.
        self.words = nn.Embedding(
            kept + FIRST_WORD_ROW + self.parts.different, dimensions, padding_idx=PADDING_ROW, sparse=True
        )
        self.filters = nn.ParameterList(
            nn.Parameter(torch.randn(filters, width, dimensions) / (width * dimensions) ** 0.5) for width in self.widths
        )
        self.filter_bias = nn.Parameter(torch.zeros(len(self.widths) * filters))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(len(self.widths) * filters, labels)

    def forward(self, batch: FlatBatch) -> Tensor:
        rows, places = np.unique(batch.rows, return_inverse=True)
        words = self._vectors(rows)
        pooled = [
            _MaxOverTime.apply(words, filters, places, batch.starts, np.maximum(batch.lengths, width) - width + 1)
            for width, filters in zip(self.widths, self.filters, strict=True)
        ]
        features = torch.relu(torch.cat(pooled, dim=1) + self.filter_bias)
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def word_vectors(self) -> Tensor:
        """``float32[V + 2, D]``: the rows of all words with their parts added, without gradient."""
        with torch.no_grad():
            return self._vectors(np.arange(len(self.parts.starts) - 1))

    def table_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The different rows of the table that the words at ``rows`` are made of."""
        return np.unique(np.concatenate([rows, self._entries(np.unique(rows))[0]]))

    def _entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The table's rows of the parts of the words at ``rows``, end to end, and how many each word has."""
        lengths = self.parts.starts[rows + 1] - self.parts.starts[rows]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(rows) else 0) + np.repeat(self.parts.starts[rows] - ends + lengths, lengths)
        return self.parts.parts[places] + len(self.parts.starts) - 1, lengths

    def _vectors(self, rows: NDArray[np.int64]) -> Tensor:
        entries, lengths = self._entries(rows)
        if not len(entries):
            vectors: Tensor = self.words(torch.from_numpy(rows))
            return vectors
        # Each different part once, and summed as dense rows: its gradient is then as long as the parts are many.
        parts, places = np.unique(entries, return_inverse=True)
        read = self.words(torch.from_numpy(np.concatenate([rows, parts])))
        scales = (1 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
        sums = nn.functional.embedding_bag(
            torch.from_numpy(places),
            read[len(rows) :],
            torch.from_numpy(np.cumsum(lengths) - lengths),
            mode="sum",
        )
        whole: Tensor = read[: len(rows)] + sums * torch.from_numpy(scales)[:, None]
        return whole


@kernel
def _update(rows, slopes, table, mean, square, first, second, rate, eps):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    for place in range(len(rows)):
        row = rows[place]
        for axis in range(table.shape[1]):
            slope = slopes[place, axis]
            mean[row, axis] += (np.float32(1) - first) * (slope - mean[row, axis])
            square[row, axis] += (np.float32(1) - second) * (slope * slope - square[row, axis])
            table[row, axis] -= rate * mean[row, axis] / (np.sqrt(square[row, axis]) + eps)


class RowAdam(torch.optim.Optimizer):
    """Takes float32 tables whose gradients are sparse in the first dimension. ``lr``: the rate; moments as Adam's."""

    def __init__(
        self, params: list[torch.Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - as Optimizer has it
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step(table, table.grad.coalesce(), group)

    def _step(self, table: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(table), exp_avg_sq=torch.zeros_like(table))
        state["step"] += 1
        first, second = group["betas"]
        rate = group["lr"] * (1 - second ** state["step"]) ** 0.5 / (1 - first ** state["step"])
        _update(
            gradient.indices()[0].numpy(),
            gradient.values().numpy(),
            table.detach().numpy(),
            state["exp_avg"].numpy(),
            state["exp_avg_sq"].numpy(),
            *(np.float32(value) for value in (first, second, rate, group["eps"])),
        )


# Of fewer texts a step's gradient is mostly chance.
_LEAST_BATCH = 4

Texts = Sequence[NDArray[np.int64]]
State = dict[str, Any]


class ConvolutionFit:
    """A training of ``network`` on this rank's ``texts``, given as word rows, and their ``targets``.

    All ranks hold one network and one state of the optimizers after each :meth:`epoch`; equal arguments give equal
    weights on machines of one kind, whether or not the training was interrupted between two epochs.
    """

    def __init__(
        self,
        network: TextCNN,
        texts: Texts,
        targets: Targets,
        *,
        recipe: ConvolutionRecipe,
        seed: int,
        exchange: Exchange,
    ) -> None:
        self.network = network
        self.done = 0
        self._texts = texts
        self._targets = targets
        self._recipe = recipe
        self._seed = seed
        self._exchange = exchange
        self._words = network.words.weight
        self._dense = [parameter for parameter in network.parameters() if parameter is not self._words]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.AdamW(self._dense, lr=recipe.rate, weight_decay=recipe.weight_decay),
            RowAdam([self._words], lr=recipe.word_rate),
        )
        self._total = sum(exchange.gather(len(texts), int))
        # The same number of steps on every rank, however uneven their rows.
        batch = max(_LEAST_BATCH, min(recipe.batch, self._total // (recipe.least_steps * exchange.world)))
        self._steps = max(1, -(-self._total // (batch * exchange.world)))
        # OneCycleLR divides by the length of its warm-up less one step, so that has to be longer.
        steps = max(2, recipe.epochs * self._steps)
        warm_up = max(recipe.warm_up, 1.5 / steps)
        self._schedules = [
            torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=warm_up, cycle_momentum=False)
            for optimizer, rate in zip(self._optimizers, (recipe.rate, recipe.word_rate), strict=True)
        ]

    def epoch(self) -> float:
        """Pass once over the rows; the mean loss over those of all ranks."""
        # Seeded by the epoch, so that one which follows an interruption is the one that would have been.
        randomness = np.random.default_rng([self._seed, self.done, self._exchange.rank])
        torch.manual_seed(int(randomness.integers(2**62)))
        self.network.train()
        loss = 0.0
        touched = np.zeros(len(self._words), np.uint8)
        pieces = np.array_split(randomness.permutation(len(self._texts)), self._steps)
        for step, chosen in enumerate(pieces, 1):
            loss += self._step(chosen, randomness, touched) if len(chosen) else self._idle()
            for schedule in self._schedules:
                schedule.step()
            if step % self._recipe.steps_apart == 0 or step == self._steps:
                self._average(touched)
        self._average_optimizers()
        self.done += 1
        return float(self._exchange.sum(np.array([loss]))[0]) / self._total

    def state(self) -> State:
        """What :meth:`restore` needs to go on from here."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for schedule, kept in zip(self._schedules, state["schedules"], strict=True):
            schedule.load_state_dict(kept)

    def _step(self, chosen: NDArray[np.int64], randomness: np.random.Generator, touched: NDArray[np.uint8]) -> float:
        """Train on the texts ``chosen`` and return the sum of their losses."""
        batch = flatten([self._texts[i] for i in chosen], max(self._recipe.widths))
        _drop_words(batch.rows, self._recipe.word_dropout, randomness)
        touched[self.network.table_rows(batch.rows)] = 1
        loss = torch.nn.functional.cross_entropy(self.network(batch), torch.from_numpy(self._targets[chosen]))
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.item() * len(chosen)

    def _idle(self) -> float:
        """A step of a rank that has no rows for it: its optimizers must have a state like the others'."""
        for parameter in self._dense:
            parameter.grad = torch.zeros_like(parameter)
        self._words.grad = torch.sparse_coo_tensor(
            torch.empty(1, 0, dtype=torch.int64),
            torch.empty(0, self._words.shape[1]),
            self._words.shape,
            check_invariants=True,
        )
        for optimizer in self._optimizers:
            optimizer.step()
        return 0.0

    def _average(self, touched: NDArray[np.uint8]) -> None:
        """Take the mean of the ranks' weights, each counting as its rows do; ``touched`` is cleared."""
        if self._exchange.world == 1:
            return
        rows = torch.from_numpy(np.flatnonzero(self._exchange.sum(touched)))
        touched[:] = 0
        with torch.no_grad():
            self._mean([*(parameter.data for parameter in self._dense)], self._words.data, rows)

    def _average_optimizers(self) -> None:
        if self._exchange.world == 1:
            return
        dense, words = (optimizer.state for optimizer in self._optimizers)
        for moment in ("exp_avg", "exp_avg_sq"):
            moments = [dense[parameter][moment] for parameter in self._dense]
            self._mean(moments, words[self._words][moment], torch.arange(len(self._words)))

    def _mean(self, dense: list[Tensor], table: Tensor, rows: Tensor) -> None:
        share = len(self._texts) / self._total
        flat = torch.cat([*(tensor.reshape(-1) for tensor in dense), table[rows].reshape(-1)]) * share
        mean = torch.from_numpy(self._exchange.sum(flat.numpy()))
        first = 0
        for tensor in dense:
            tensor.copy_(mean[first : first + tensor.numel()].view_as(tensor))
            first += tensor.numel()
        table[rows] = mean[first:].view(len(rows), -1)


def fresh_network(
    kept: int,
    labels: int,
    recipe: ConvolutionRecipe,
    seed: int,
    *,
    parts: WordParts | None = None,
    known: NDArray[np.float32] | None = None,
) -> TextCNN:
    """An untrained network of ``kept`` words, which have ``parts``, and so many ``labels``: the same on every rank.

    ``known`` float32[V, D]: what is known of each kept word, added to its random beginning.
    """
    torch.manual_seed(seed)
    network = TextCNN(
        kept,
        labels,
        dimensions=recipe.dimensions,
        filters=recipe.filters,
        widths=recipe.widths,
        dropout=recipe.dropout,
        parts=parts,
    )
    with torch.no_grad():
        network.words.weight *= recipe.word_scale
        if known is not None:
            network.words.weight[FIRST_WORD_ROW : FIRST_WORD_ROW + len(known)] += torch.from_numpy(known)
    return network


def convolution_logits(network: TextCNN, texts: Texts, batch: int = 256) -> Tensor:
    """``float32[texts, C]``: the logits without dropout."""
    network.eval()
    widest = max(network.widths)
    parts = [torch.empty(0, network.head.out_features)]
    with torch.no_grad():
        parts += [network(flatten(texts[i : i + batch], widest)) for i in range(0, len(texts), batch)]
    return torch.cat(parts)


def _drop_words(rows: NDArray[np.int64], share: float, randomness: np.random.Generator) -> None:
    """Make a share of the words unknown, in place: this is what trains the unknown row."""
    rows[(randomness.random(len(rows)) < share) & (rows != PADDING_ROW)] = UNKNOWN_ROW
