"""What a test of a demo gives it, and reads of what it prints."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

WORDS = {
    "sport": ["goal", "match", "team", "player", "score", "win", "league", "cup", "coach", "ball"],
    "money": ["bank", "rate", "tax", "market", "share", "profit", "firm", "price", "stock", "trade"],
}
COMMON = ["the", "a", "of", "and", "in", "to", "on", "with", "for", "by", "after", "new", "old", "big"]
COLUMNS = ("--text-column", "body", "--label-column", "kind")


def write_texts(path: Path, count: int) -> None:
    """Write ``count`` short texts of two classes as JSON lines, each of two paragraphs and of its own."""
    chance = random.Random(1)

    def body(number: int, label: str) -> str:
        words = [chance.choice(WORDS[label] if chance.random() < 0.5 else COMMON) for _ in range(20)]
        return f"{' '.join(words)}\n{chance.choice(WORDS[label])} {number}"

    labels = [("sport", "money")[number % 2] for number in range(count)]
    rows = [{"body": body(number, label), "kind": label} for number, label in enumerate(labels)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def audit(printed: str) -> tuple[int, ...]:
    """Published, answered, lost and repeated, as a demo printed them."""
    found = re.search(
        r"^audit: published ([\d,]+), answered ([\d,]+), lost ([\d,]+), repeated ([\d,]+)$", printed, re.MULTILINE
    )
    assert found, printed
    return tuple(int(number.replace(",", "")) for number in found.groups())
