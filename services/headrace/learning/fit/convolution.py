"""Fit the convolution: one-cycle AdamW with word dropout, epoch by epoch, on one rank or on several.

Each rank trains on its own rows, and every few steps all take the mean of their weights: a step takes milliseconds, and
exchanging the gradient of every step would take longer. Of the words' table only the rows that some rank has touched
since the last exchange are exchanged. Source: Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.model.compiling import kernel
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW, UNKNOWN_ROW
from headrace.model.textcnn import TextCNN, WordParts, flatten


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


Texts = Sequence[NDArray[np.int64]]
State = dict[str, Any]


class ConvolutionFit:
    """A training of ``network`` on this rank's ``texts``, given as word rows, and ``targets`` int64[texts].

    All ranks hold one network and one state of the optimizers after each :meth:`epoch`; equal arguments give equal
    weights on machines of one kind, whether or not the training was interrupted between two epochs.
    """

    def __init__(
        self,
        network: TextCNN,
        texts: Texts,
        targets: NDArray[np.int64],
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
        self._steps = max(1, -(-self._total // (recipe.batch * exchange.world)))
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
