"""Texts that a teacher labelled: they train beside the rows that people labelled, and never judge.

A teacher may be wrong, so validation, test, calibration and thresholds are of human rows alone. A text that a person
labelled is theirs, whatever a teacher says. A text whose hash falls into validation or test does not train either, so
that a person may label it later and no version has learnt it (:func:`admit`).

Soft targets and their temperature: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.validation import NO_WORDS

# Smaller probabilities are taken for none: of many classes they would make every row one of all classes.
_LEAST_PROBABILITY = 0.01
_TOLERANCE = 1e-3


class Taught(msgspec.Struct, frozen=True, kw_only=True):
    """``probabilities`` float32 (texts, classes): what a teacher says of each text; a row sums to one.

    ``classes`` are sorted names. ``origins`` name the teachers and their versions. ``weights`` float32 (texts,): what
    each text counts beside the others, by what the operator says of its origin; None is one each.
    """

    texts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    probabilities: NDArray[np.float32] = np.empty((0, 0), np.float32)
    origins: tuple[str, ...] = ()
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int]) -> Taught:
        """The rows at ``places``, in that order."""
        chosen = np.asarray(places, np.int64)
        return msgspec.structs.replace(
            self,
            texts=tuple(self.texts[place] for place in places),
            probabilities=self.probabilities[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def rows(self) -> Rows:
        """Each text with the class that the teacher holds for the likeliest."""
        best = self.probabilities.argmax(axis=1) if len(self) else []
        return Rows(self.texts, tuple(self.classes[place] for place in best))

    def of_classes(self, classes: Sequence[str]) -> Taught:
        """The same over ``classes``, sorted, which hold all of :attr:`classes`."""
        places = {name: place for place, name in enumerate(classes)}
        wider = np.zeros((len(self), len(classes)), np.float32)
        wider[:, [places[name] for name in self.classes]] = self.probabilities
        return msgspec.structs.replace(self, classes=tuple(classes), probabilities=wider)

    def targets(self, temperature: float) -> NDArray[np.float32]:
        """``float32 (texts, classes)``: the soft targets, each row summing to what its text counts.

        A probability is taken to the power 1 / ``temperature``: below 1 the teacher is made surer of itself, towards 0
        its best class alone is left. Probabilities below a hundredth count as none.
        """
        powers = np.log(np.maximum(self.probabilities, 1e-12)) / temperature
        soft = np.exp(powers - powers.max(axis=1, keepdims=True, initial=-np.inf))
        soft = np.where(soft < _LEAST_PROBABILITY * soft.sum(axis=1, keepdims=True), 0, soft)
        soft /= soft.sum(axis=1, keepdims=True)
        if self.weights is not None:
            soft *= self.weights[:, None]
        return soft.astype(np.float32)


NO_TAUGHT = Taught()


def make_taught(
    texts: Sequence[str], classes: Sequence[str], probabilities: NDArray[np.floating], origin: str
) -> Taught:
    """What the teacher ``origin`` says of ``texts``: ``probabilities`` (texts, classes) in the order of ``classes``.

    Raises DatasetError for scores that are no probabilities, or of another shape.
    """
    found = np.asarray(probabilities, np.float32)
    names = [label_name(name) for name in classes]
    if found.shape != (len(texts), len(classes)) or len(set(names)) != len(names):
        raise DatasetError(
            f"the teacher {origin} gave scores of shape {found.shape} for {len(texts)} texts and {len(set(names))} "
            "different classes"
        )
    sums = found.sum(axis=1)
    if not (np.isfinite(found).all() and (found >= 0).all() and (np.abs(sums - 1) < _TOLERANCE).all()):
        raise DatasetError(f"the teacher {origin} gave scores that are no probabilities: a row has to sum to one")
    order = sorted(range(len(names)), key=names.__getitem__)
    return Taught(
        texts=tuple(texts),
        classes=tuple(names[place] for place in order),
        probabilities=np.ascontiguousarray(found[:, order] / sums[:, None]),
        origins=(origin,),
    )


class Admitted(msgspec.Struct, frozen=True):
    """Which machine rows may train, ``places`` of them in order, and how many may not, by reason."""

    places: tuple[int, ...]
    dropped: dict[str, int]


def admit(
    keys: Sequence[bytes], judging: NDArray[np.bool_], human: Collection[bytes], teachers: Sequence[str] | None = None
) -> Admitted:
    """Which of the machine rows with these text ``keys`` train: the first of each text that has words and nobody has
    labelled (``human``: keys), and that ``judging`` does not count among the texts to validate or test on. Where each
    row's teacher is named, the first of each teacher.
    """
    dropped = {"machine-empty": 0, "machine-human": 0, "machine-held-out": 0, "machine-duplicate": 0}
    seen = set[tuple[bytes, str]]()
    places = []
    tellers = [""] * len(keys) if teachers is None else teachers
    for place, (key, judges, teacher) in enumerate(zip(keys, judging.tolist(), tellers, strict=True)):
        if key == NO_WORDS:
            dropped["machine-empty"] += 1
        elif key in human:
            dropped["machine-human"] += 1
        elif judges:
            dropped["machine-held-out"] += 1
        elif (key, teacher) in seen:
            dropped["machine-duplicate"] += 1
        else:
            seen.add((key, teacher))
            places.append(place)
    return Admitted(tuple(places), dropped)


def taught_digests(taught: Taught, keys: Sequence[bytes]) -> list[str]:
    """A SHA-256 of each machine row: its text's key, its scores, and what it counts."""
    weights = np.ones(len(taught), np.float32) if taught.weights is None else taught.weights
    return [
        hashlib.sha256(key + scores.astype("<f4").tobytes() + weight.astype("<f4").tobytes()).hexdigest()
        for key, scores, weight in zip(keys, taught.probabilities, weights, strict=True)
    ]


class _Line(msgspec.Struct, frozen=True):
    text: str
    scores: dict[str, float]
    teacher: str
    weight: float = 1.0


def write_taught(path: Path, taught: Taught) -> None:
    """Write JSON lines, one a text: ``text``, ``scores`` by class, ``teacher`` and, other than 1, ``weight``."""
    origin = " ".join(taught.origins)
    weights = [1.0] * len(taught) if taught.weights is None else taught.weights.tolist()
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for text, row, weight in zip(taught.texts, taught.probabilities, weights, strict=True):
            scores = {name: float(value) for name, value in zip(taught.classes, row.tolist(), strict=True) if value}
            line = {"text": text, "scores": scores, "teacher": origin}
            file.write(encode(line if weight == 1 else line | {"weight": weight}) + b"\n")


def read_taught(path: Path) -> Taught:
    """Read what :func:`write_taught` wrote, or a program: a class that a line leaves out has the score 0.

    Raises DatasetError for a file that is missing or no such lines, and says which line.
    """
    decode = msgspec.json.Decoder(_Line).decode
    lines: list[_Line] = []
    try:
        with path.open("rb") as file:
            for number, row in enumerate(file, 1):
                try:
                    lines.append(decode(row))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise DatasetError(f"{path}, line {number}: no machine label: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    classes = sorted({label_name(name) for line in lines for name in line.scores})
    places = {name: place for place, name in enumerate(classes)}
    scores = np.zeros((len(lines), len(classes)), np.float32)
    for place, line in enumerate(lines):
        for name, value in line.scores.items():
            scores[place, places[label_name(name)]] += value
    weights = np.array([line.weight for line in lines], np.float32)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise DatasetError(f"{path} has a weight that is no number of 0 or more")
    made = make_taught([line.text for line in lines], classes, scores, str(path))
    origins = tuple(sorted({line.teacher for line in lines}))
    return msgspec.structs.replace(made, origins=origins, weights=None if (weights == 1).all() else weights)
