"""Train by the real command, in a process that Ctrl-C can end at once, and keep what it made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from headrace.demo.children import run_to_its_end
from headrace.demo.texts import write_rows
from headrace.learning.data.files import Rows

GRACE_S = 2.0


async def train_model(rows: Rows, model: Path, *, environ: Mapping[str, str]) -> None:
    """Run `headrace train` on ``rows``, its output beside ours; it writes ``model``. Raises ChildEndedError."""
    folder = model.parent
    data = folder / "texts.jsonl"
    write_rows(rows, data)
    # By names in its folder: what it prints shall not point at files that are gone soon.
    # A first look, not the best model: the demo is to be seen whole before somebody has lost patience.
    command = ["train", data.name, "--out", model.name, "--quick", "--max-tokens", "128"]
    await run_to_its_end("`headrace train`", command, environ=environ, folder=folder, log=None, grace_s=GRACE_S)


def keep(model: Path, at: Path) -> None:
    """Copy ``model`` to ``at``, whole or not at all: a worker may be loading the one of an earlier demo there."""
    at.parent.mkdir(parents=True, exist_ok=True)
    half = at.with_name(f"{at.name}.{model.parent.name}")
    shutil.copyfile(model, half)
    half.replace(at)
