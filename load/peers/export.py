"""An artifact's convolution for the peers: eager PyTorch, ONNX and a vocabulary.

    python -m load.peers.export --model ARTIFACT --texts FILE.jsonl --out FOLDER

An artifact holds hashes of words, so the vocabulary is of those words of the texts that it knows. Ends with how often
the exports and the artifact's own convolution agree on the texts; below 95 in a hundred it is an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from headrace.model.artifact import Artifact, load
from headrace.model.backends.cpu import CpuBackend
from headrace.model.integers import KEY_SHIFT, QuantizedNetwork, stepped
from headrace.model.network import FIRST_WORD_ROW
from headrace.model.words import word_hash
from load.peers.model import ENGINES, Model, TextCNN, split

LEAST_AGREEMENT = 0.95
CHECKED = 1024


def export(model: Path, texts: Sequence[str], folder: Path) -> dict[str, float]:
    """Write network.pt, network.onnx, words.json and about.json; return how often each engine agrees with the artifact.

    Raises ArtifactError for a file that is none, ValueError when an engine agrees on fewer than 95 in a hundred.
    """
    artifact = load(str(model))
    write(artifact, texts, folder)
    _write_onnx(module(artifact.network), folder / "network.onnx")
    agreement = {engine: _agreement(artifact, folder, engine, texts[:CHECKED]) for engine in ENGINES}
    for engine, share in agreement.items():
        if share < LEAST_AGREEMENT:
            raise ValueError(f"{engine} agrees with {model} on {share:.1%} of the texts: the export is wrong")
    return agreement


def write(artifact: Artifact, texts: Sequence[str], folder: Path) -> None:
    """Write network.pt, words.json and about.json, which eager PyTorch needs."""
    folder.mkdir(parents=True, exist_ok=True)
    network = artifact.network
    torch.save(module(network).state_dict(), folder / "network.pt")
    words = json.dumps(vocabulary(network, texts), ensure_ascii=False)
    (folder / "words.json").write_text(words, encoding="utf-8")
    about = {
        "version": artifact.version,
        "labels": network.labels,
        "max_tokens": network.max_tokens,
        "shape": _shape(network),
    }
    (folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def vocabulary(network: QuantizedNetwork, texts: Sequence[str]) -> dict[str, int]:
    """The row of each word of the texts that the network knows."""
    row_of_key = {int(key): FIRST_WORD_ROW + place for place, key in enumerate(network.word_keys)}
    words = {word for text in texts for word in split(text)}
    found = ((word, row_of_key.get(word_hash(word) >> KEY_SHIFT)) for word in sorted(words))
    return {word: row for word, row in found if row is not None}


def module(network: QuantizedNetwork) -> TextCNN:
    """The network in float32. The integers' logit times their unit is this module's logit, but for rounding."""
    result = TextCNN(**_shape(network))
    words = stepped(network.words, network.word_steps) * network.word_unit
    scales = network.filter_scales.reshape(len(network.widths), -1)
    bias = (network.filter_bias * network.table_scales).reshape(len(network.widths), -1)
    head = stepped(network.head, network.head_steps).astype(np.float64)
    state = {
        "embedding.weight": words,
        # Features count in steps of their filter's table, and here in units of the embedding.
        "head.weight": head * network.convolution_factor * network.unit / network.table_scales,
        "head.bias": network.bias * network.unit,
    }
    for place, filters in enumerate(network.filters):
        # int8[F, width, D] to Conv1d's [F, D, width].
        state[f"convolutions.{place}.weight"] = (filters * scales[place][:, None, None]).transpose(0, 2, 1)
        state[f"convolutions.{place}.bias"] = bias[place]
    result.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in state.items()})
    return result.eval()


def _shape(network: QuantizedNetwork) -> dict[str, Any]:
    rows, dimensions = network.words.shape
    return {
        "words": rows,
        "dimensions": dimensions,
        "filters": network.filters_a_width,
        "widths": network.widths,
        "labels": len(network.labels),
    }


def _write_onnx(network: TextCNN, path: Path) -> None:
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=8)
    example = (torch.ones(2, 16, dtype=torch.int64),)
    torch.onnx.export(
        network,
        example,
        path,
        input_names=["rows"],
        output_names=["logits"],
        dynamic_shapes=({0: batch, 1: length},),
        external_data=False,
        verbose=False,
    )


def _agreement(artifact: Artifact, folder: Path, engine: str, texts: Sequence[str]) -> float:
    alone = dataclasses.replace(artifact, network=dataclasses.replace(artifact.network, wide_factor=0))
    answers = CpuBackend(alone).classify([text.encode() for text in texts])
    expected = [artifact.labels[label] for label in answers.labels]
    found = [label for label, _ in Model(str(folder), engine, 1).label(texts)]
    return float(np.mean([a == b for a, b in zip(expected, found, strict=True)]))


def read_texts(path: Path) -> list[str]:
    """The field text of a file of JSON lines."""
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=dict[str, str])["text"] for line in lines]


def main() -> None:
    """Export as the command line says, and print the agreement."""
    parser = argparse.ArgumentParser(prog="python -m load.peers.export", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="an artifact of `headrace train`")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a field text")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    options = parser.parse_args()
    for engine, share in export(options.model, read_texts(options.texts), options.out).items():
        print(f"{engine}: the labels of the artifact's convolution on {share:.1%} of the texts")


if __name__ == "__main__":
    main()
