"""The certified cascade on real rows: how much is answered alone, and how often the bound is broken.

    python tests/benchmarks/cascade.py DATA [--sets banking77 clinc150] [--resamples 1000]

DATA is a folder of NAME/train.jsonl and NAME/test.jsonl (fields text and label). A version is trained on the training
rows; the label oos of clinc150 is left out. A fifth of the test rows gives the grid of thresholds; the others are the
population. From it rows are drawn at random, with replacement, as a random slice of a stream: so the share of wrong
answers above each threshold is known exactly, and a certificate is broken where that share is higher than allowed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.core.cascade import Certified, certify, grid_of
from headrace.learning.evaluate import answer_scored
from headrace.model.artifact import load
from headrace.model.backends.interface import open_backend

SLICE = 3000
ALLOWED = (0.01, 0.02, 0.05)


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a file, without those out of scope."""
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["label"] != "oos"]


def answered(data: Path, folder: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each test row the score of a version's answer, and whether the answer is wrong."""
    train, artifact = folder / "train.jsonl", folder / "model.safetensors"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows_of(data / "train.jsonl")), encoding="utf-8")
    headrace = Path(sys.executable).with_name("headrace")
    subprocess.run([headrace, "train", train, "--out", artifact, "--budget", "0"], check=True, stdout=sys.stderr)
    test = rows_of(data / "test.jsonl")
    given = answer_scored(open_backend("cpu", load(str(artifact))), [row["text"] for row in test])
    wrong = [label != row["label"] for label, row in zip(given.labels, test, strict=True)]
    return np.array(given.scores), np.array(wrong)


def measure(name: str, scores: NDArray[np.float64], wrong: NDArray[np.bool_], resamples: int) -> None:
    """Print a line for each share that is allowed."""
    randomness = np.random.default_rng(0)
    order = randomness.permutation(len(scores))
    others, population = order[: len(order) // 5], order[len(order) // 5 :]
    grid = grid_of(scores[others].tolist())
    scores, wrong = scores[population], wrong[population]
    for allowed in ALLOWED:
        coverage, bounds, true = [], [], []
        for _ in range(resamples):
            drawn = randomness.integers(0, len(scores), SLICE)
            found = certify(scores[drawn].tolist(), wrong[drawn].tolist(), grid, disagree=allowed)
            if isinstance(found, Certified):
                above = scores >= found.threshold
                coverage.append(float(above.mean()))
                bounds.append(found.bound)
                true.append(float(wrong[above].mean()))
        if not coverage:
            print(f"{name:<12} {allowed:>7.0%}  never certified")
            continue
        broken = sum(share > allowed for share in true)
        low, high = np.quantile(coverage, (0.05, 0.95))
        print(
            f"{name:<12} {allowed:>7.0%} {1 - wrong.mean():>9.1%} {len(coverage):>9} {np.mean(coverage):>9.1%} "
            f"{low:>6.1%}-{high:<6.1%} {np.mean(bounds):>8.2%} {np.mean(true):>8.2%} {broken:>7} "
            f"({broken / resamples:.1%})"
        )


def main() -> None:
    """Train, answer, resample and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    print("set          allowed  accuracy certified  coverage  5 % - 95 %    bound  in truth  broken")
    for name in given.sets:
        with tempfile.TemporaryDirectory() as folder:
            scores, wrong = answered(given.data / name, Path(folder))
        measure(name, scores, wrong, given.resamples)


if __name__ == "__main__":
    main()
