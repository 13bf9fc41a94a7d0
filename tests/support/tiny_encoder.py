"""A transformer of a few thousand weights in a folder, as a real one lies there: tests train and save it in moments."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "card",
    "lost",
    "refund",
    "money",
    "late",
    "my",
    "the",
    "is",
    "##s",
)


def write_tiny_encoder(folder: Path, *, seed: int = 0, safetensors: bool = True) -> Path:
    """Write a BERT of one layer and 16 dimensions with random weights; without ``safetensors`` as a pickle."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    model = BertModel(config)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    if not safetensors:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder
