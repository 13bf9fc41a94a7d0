"""The model that every peer answers by: a text CNN as people write it, in eager PyTorch or ONNX Runtime.

In float32, without headrace's wide part and without masks for batch padding: both leave work out, in the peers' favour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from load.peers.running import Settings

PADDING = 0
UNKNOWN = 1
# A run of word characters or one sign, as headrace cuts English texts.
_WORDS = re.compile(r"[\w']+|[^\w\s]")


class TextCNN(nn.Module):
    """Kim 2014. Rows of words ``int64[batch, length]``, length at least the largest width -> ``float32[batch, C]``."""

    def __init__(self, words: int, dimensions: int, filters: int, widths: Sequence[int], labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dimensions, padding_idx=PADDING)
        self.convolutions = nn.ModuleList(nn.Conv1d(dimensions, filters, width) for width in widths)
        self.head = nn.Linear(filters * len(widths), labels)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits."""
        embedded = self.embedding(rows).transpose(1, 2)
        pooled = [torch.relu(convolution(embedded)).amax(dim=2) for convolution in self.convolutions]
        logits: torch.Tensor = self.head(torch.cat(pooled, dim=1))
        return logits


def split(text: str) -> list[str]:
    """The words of a text, lower-cased."""
    return _WORDS.findall(text.lower())


def rows_of(texts: Sequence[str], vocabulary: dict[str, int], max_tokens: int, least: int) -> torch.Tensor:
    """``int64[texts, longest]``: the rows of the words, padded behind to the longest text and at least to ``least``."""
    found = [[vocabulary.get(word, UNKNOWN) for word in split(text)[:max_tokens]] for text in texts]
    longest = max(least, *map(len, found))
    return torch.tensor([row + [PADDING] * (longest - len(row)) for row in found])


# What the programs fetch at once.
BATCH = 256
# What goes through the network at once, texts of like length together: padding 256 texts to the longest of them doubles
# the work (61 CPU seconds for 100,000 AG News texts in PyTorch against 28, in ONNX Runtime 37 against 20).
TOGETHER = 32


class Model:
    """An export of `load.peers.export`, opened."""

    def __init__(self, folder: str, engine: str, threads: int) -> None:
        """Raises ValueError for an engine other than torch and onnx."""
        if engine not in _OPEN:
            raise ValueError(f"there is no engine {engine!r}; there are {', '.join(_OPEN)}")
        path = Path(folder)
        about = json.loads((path / "about.json").read_text(encoding="utf-8"))
        self.version: str = about["version"]
        self.labels: list[str] = about["labels"]
        self._vocabulary: dict[str, int] = json.loads((path / "words.json").read_text(encoding="utf-8"))
        self._max_tokens: int = about["max_tokens"]
        self._least: int = max(about["shape"]["widths"])
        self._logits = _OPEN[engine](path, about["shape"], threads)

    def label(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The best label of each text and its score."""
        found: list[tuple[str, float]] = [("", 0.0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for first in range(0, len(order), TOGETHER):
            places = order[first : first + TOGETHER]
            rows = rows_of([texts[place] for place in places], self._vocabulary, self._max_tokens, self._least)
            with torch.inference_mode():
                best = torch.softmax(self._logits(rows), dim=1).max(dim=1)
            for place, label, score in zip(places, best.indices.tolist(), best.values.tolist(), strict=True):
                found[place] = (self.labels[label], score)
        return found

    def answer(self, requests: Sequence[dict[str, str]]) -> list[dict[str, object]]:
        """An answer to each request, with its ``id``."""
        found = self.label([request["text"] for request in requests])
        return [
            {"id": request["id"], "label": label, "score": score, "version": self.version}
            for request, (label, score) in zip(requests, found, strict=True)
        ]


def open_model(settings: Settings) -> Model:
    """The model that a peer is told to answer by. Raises ValueError for an engine that does not exist."""
    return Model(settings.model, settings.engine, settings.threads)


def _eager(path: Path, shape: dict[str, Any], threads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    torch.set_num_threads(threads)
    network = TextCNN(**shape)
    network.load_state_dict(torch.load(path / "network.pt", weights_only=True))
    return network.eval()


def _onnx(path: Path, shape: dict[str, Any], threads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    del shape
    import onnxruntime  # noqa: PLC0415 - only who asks for it waits for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path / "network.onnx", options, providers=["CPUExecutionProvider"])

    def logits(rows: torch.Tensor) -> torch.Tensor:
        (found,) = session.run(None, {"rows": np.ascontiguousarray(rows.numpy())})
        return torch.from_numpy(found)

    return logits


_OPEN = {"torch": _eager, "onnx": _onnx}
ENGINES = tuple(_OPEN)
