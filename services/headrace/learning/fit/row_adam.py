"""Adam for a table of which a step touches few rows: torch.optim.SparseAdam's arithmetic in one pass over these rows.

SparseAdam reads rows by sparse_mask and writes them by sparse sums, which took two fifths of a training. Source: Kingma
and Ba, Adam, ICLR 2015, lazily: the moments of a row that a step does not touch stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headrace.model.compiling import kernel


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
