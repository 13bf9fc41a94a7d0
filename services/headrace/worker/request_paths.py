"""Where a request has its text and its id, as kernels follow it: keys of maps, one inside the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel

MOST_PARTS: Final = 16
"""Kernels follow no longer path."""
DEEPEST: Final = 32
"""So many maps and lists inside each other are passed over where nothing is looked for."""
TORN: Final = -1
"""Instead of a place: what stands there is not plain."""
ABSENT: Final = -2
"""Instead of a place: the request is plain, and has no text."""


class KeyPaths(msgspec.Struct, frozen=True, eq=False):
    """The path of the text and behind it that of the id. Part i is ``keys[ends[i]:ends[i + 1]]``, ``keys`` uint8,
    ``ends`` int64; the first ``text_parts`` are the text's. Without parts there is nothing to follow.
    """

    keys: NDArray[np.uint8]
    ends: NDArray[np.int64]
    text_parts: int


def key_paths(text: Sequence[str], id_: Sequence[str]) -> KeyPaths:
    """The paths with these parts; none where a kernel can't follow them: they are the same, or too long."""
    whole = [part.encode() for part in (*text, *id_)]
    if text == id_ or max(len(text), len(id_)) > MOST_PARTS:
        whole, text = [], ()
    ends = np.cumsum([0, *map(len, whole)], dtype=np.int64)
    return KeyPaths(np.frombuffer(b"".join(whole), np.uint8), ends, len(text))


@kernel
def same(data, at, length, other, begin, end):  # type: ignore[no-untyped-def]
    """Whether ``data[at:at + length]`` is ``other[begin:end]``."""
    if length != end - begin:
        return False
    for i in range(length):  # noqa: SIM110 - compiled
        if data[at + i] != other[begin + i]:
            return False
    return True


@kernel
def is_part(data, at, length, keys, ends, part):  # type: ignore[no-untyped-def]
    """Whether the key at ``data[at:at + length]`` is this part of the paths."""
    return same(data, at, length, keys, ends[part], ends[part + 1])
