"""The artifact's convolution as people write it in PyTorch: embedding, Conv1d of several widths, maximum, linear.

In float32, without headrace's wide part and without masks for batch padding: both leave work out, in the peers' favour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

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
