"""The teacher `encoder`: a pretrained transformer with a linear head, fitted to rows that people labelled.

The transformer stays frozen and the head is a logistic regression over its vectors, or both are trained on. Which of
the two, and how strongly the head is pulled towards 0, is chosen on validation rows. With few of them it is chosen by
cross-validation, and the teacher then learns from the validation rows too. A fine-tuning begins from the fitted head
(Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022), and its temperature is fitted to the rows that
it was chosen by (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

Saved, a teacher is one safetensors file: the head, the weights if they were trained on, and JSON. The transformer
itself is named there and has to be the same, by its digest.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.labeller.teachers.interface import (
    Identity,
    Kind,
    SoftLabels,
    Spent,
    TeacherError,
    TeacherName,
    Tell,
    identity_of,
    silent,
)
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Splitting
from headrace.learning.data.validation import text_keys
from headrace.learning.encoder import MAX_TOKENS, Encoder, EncoderError, load_encoder, own_threads
from headrace.learning.fit.hyperparameters import TeachingRecipe

if TYPE_CHECKING:
    import torch

FEW = TeachingRecipe().least_valid
"""With fewer validation rows the choice is made by cross-validation."""

_FOLDS = 5
# Strengths of the head, as C of scikit-learn's LogisticRegression, over vectors of length 1; the weakest first.
_STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0)
_ITERATIONS = 200
_TEMPERATURES = tuple(float(one) for one in np.geomspace(0.5, 4.0, 31))

# Of fewer rows a fine-tuning is not tried, nor where the head alone is nearly always right. With ten rows a class it
# made nothing better (docs/benchmarks.md) and took ten minutes to find that out.
_LEAST_TUNED = 300
_LEAST_TUNED_A_CLASS = 20
_GOOD_ENOUGH = 0.98
# Passes over rows that a fine-tuning takes: what two cores do in some seven minutes, and two epochs at least.
_PASSES = 16_000
_MOST_EPOCHS = 8
_LEAST_EPOCHS = 2
_TUNED_BATCH = 32
# Rows that are sorted by length together: batches of like lengths, and not the same ones in each epoch.
_WINDOW = 20 * _TUNED_BATCH
_RATE, _HEAD_RATE = 5e-5, 1e-2
_SMOOTHING = 0.05

_BATCH = 256
_FORMAT = "headrace-teacher/1"
_MOST_BYTES = 4 << 30
_TUNED = "encoder."


class Tune(enum.StrEnum):
    """Whether the transformer is trained on."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher was chosen by: ``rows`` that people labelled and it had not learnt from, and its accuracy there.

    ``frozen`` and ``tuned`` are the accuracies of the two kinds; ``tuned`` was measured on ``tuned_rows`` of them.
    ``learnt``: how many rows it learnt from in the end.
    """

    rows: int
    accuracy: float
    frozen: float
    tuned: float | None = None
    tuned_rows: int = 0
    learnt: int = 0
    crossed: bool = False
    strength: float = 0.0


class Head(msgspec.Struct, frozen=True, eq=False):
    """``weight`` float32[classes, dimensions] and ``bias`` float32[classes]: from vectors to logits."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, dimensions] to float32[n, classes], each row of which sums to 1."""
        return _softmax(vectors @ self.weight.T + self.bias)


class _Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    encoder: str | None
    encoder_digest: str
    max_tokens: int
    labels: tuple[str, ...]
    tuned: bool
    evidence: Evidence


class EncoderTeacher:
    """An encoder with its head; ``tuned`` are the encoder's own weights where they were trained on."""

    batch = _BATCH

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        labels: tuple[str, ...],
        evidence: Evidence,
        *,
        named: str | None = None,
        tuned: dict[str, NDArray[np.float32]] | None = None,
        threads: int | None = None,
    ) -> None:
        self._encoder = encoder
        self._head = head
        self._tuned = tuned
        self._threads = threads
        self._named = named
        self.labels = labels
        self.evidence = evidence
        parts = [encoder.digest.encode(), head.weight.tobytes(), head.bias.tobytes()]
        for name in sorted(tuned or ()):
            parts += [name.encode(), (tuned or {})[name].tobytes()]
        self.identity: Identity = identity_of(TeacherName(Kind.ENCODER, named), labels, *parts)

    @property
    def tuned(self) -> bool:
        """Whether the transformer was trained on."""
        return self._tuned is not None

    def embed(self, texts: Sequence[str], tell: Tell = silent) -> NDArray[np.float32]:
        """The vectors of ``texts`` as this teacher sees them, float32[n, dimensions]. Blocks."""
        with own_threads(self._threads):
            return self._encoder.embed(texts, lambda done, total: tell("embedding", done, total))

    def score(self, texts: Sequence[str], tell: Tell = silent) -> NDArray[np.float32]:
        """float32[n, classes]. Blocks."""
        return self._head.scores(self.embed(texts, tell))

    def without(self, known: Rows, texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
        """What a teacher that learnt from the ``known`` rows alone says of ``texts``, float32[texts, labels].

        A frozen one, for the weights of one that was trained on know the other rows too. Blocks.
        """
        if self._tuned is None:
            encoder = self._encoder
        else:
            encoder = open_encoder(self._named, max_tokens=self._encoder.max_tokens)
        again = fit_teacher(encoder, known, Rows((), ()), tune=Tune.NEVER, threads=self._threads)
        scores = np.zeros((len(texts), len(labels)), np.float32)
        scores[:, [labels.index(label) for label in again.labels]] = again.score(texts)
        return scores

    def within(self, texts: Sequence[str]) -> Spent:  # noqa: ARG002 - it costs nothing but time
        return Spent()

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        return SoftLabels(await asyncio.to_thread(self.score, texts, tell), {})

    async def close(self) -> None:
        """Nothing is held but memory."""

    def save(self, file: Path) -> None:
        """Write the teacher as one file. Raises OSError."""
        from safetensors.numpy import save  # noqa: PLC0415 - part of an extra

        saved = _Saved(
            format=_FORMAT,
            encoder=self._named,
            encoder_digest=self._encoder.digest,
            max_tokens=self._encoder.max_tokens,
            labels=self.labels,
            tuned=self.tuned,
            evidence=self.evidence,
        )
        tensors = {"head.weight": self._head.weight, "head.bias": self._head.bias}
        tensors |= {f"{_TUNED}{name}": one for name, one in (self._tuned or {}).items()}
        data = save(tensors, metadata={"teacher": msgspec.json.encode(saved).decode()})
        partial = file.with_name(f"{file.name}.partial")
        partial.write_bytes(data)
        partial.replace(file)


def load_teacher(
    file: Path, *, threads: int | None = None, download: bool = True, remembers: bool = False
) -> EncoderTeacher:
    """Load what :meth:`EncoderTeacher.save` wrote, and the encoder that it names. Raises TeacherError.

    A teacher that ``remembers`` keeps the vectors of its texts.
    """
    saved, tensors = _read(file)
    encoder = open_encoder(saved.encoder, max_tokens=saved.max_tokens, download=download)
    if encoder.digest != saved.encoder_digest:
        raise TeacherError(
            f"{file}: was fitted to another model than {encoder.name} is here now (digest"
            f" {saved.encoder_digest[:12]}, here {encoder.digest[:12]}). Install that one, or fit the teacher anew."
        )
    if remembers:
        encoder.remember()
    head = Head(tensors.pop("head.weight", _NOTHING), tensors.pop("head.bias", _NOTHING))
    if head.weight.shape != (len(saved.labels), encoder.dimensions) or head.bias.shape != (len(saved.labels),):
        raise TeacherError(
            f"{file}: its head does not fit its {len(saved.labels)} labels and the encoder {encoder.name}."
        )
    tuned = {name.removeprefix(_TUNED): one for name, one in tensors.items()} if saved.tuned else None
    if tuned is not None:
        try:
            _put(encoder, tuned)
        except (RuntimeError, KeyError):
            raise TeacherError(f"{file}: its weights do not fit the encoder {encoder.name}.") from None
    return EncoderTeacher(
        encoder, head, saved.labels, saved.evidence, named=saved.encoder, tuned=tuned, threads=threads
    )


_NOTHING = np.zeros(0, np.float32)


def _read(file: Path) -> tuple[_Saved, dict[str, NDArray[np.float32]]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - part of an extra

    try:
        if file.stat().st_size > _MOST_BYTES:
            raise TeacherError(f"{file}: is larger than any teacher, {_MOST_BYTES >> 30} GiB.")
        with safe_open(file, "numpy") as opened:
            told = (opened.metadata() or {}).get("teacher", "")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
        saved = msgspec.json.decode(told, type=_Saved)
    except OSError as error:
        raise TeacherError(f"{file}: can't be read: {error.strerror or error}.") from None
    except (SafetensorError, msgspec.DecodeError, ValueError, TypeError) as error:
        raise TeacherError(f"{file}: is no teacher that headrace saved: {str(error)[:200]}") from None
    if saved.format != _FORMAT:
        raise TeacherError(f"{file}: is of the format {saved.format[:40]!r}; this headrace reads {_FORMAT}.")
    if len(set(saved.labels)) != len(saved.labels) or len(saved.labels) < 2:
        raise TeacherError(f"{file}: has a label twice, or fewer than two.")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise TeacherError(f"{file}: {name[:80]!r} is not of finite 32-bit floats.")
    return saved, tensors


def fit_teacher(
    encoder: Encoder,
    train: Rows,
    valid: Rows,
    *,
    named: str | None = None,
    tune: Tune = Tune.AUTO,
    splitting: Splitting = UNKEYED,
    seed: int = 0,
    threads: int | None = None,
    tell: Tell = silent,
) -> EncoderTeacher:
    """Fit a teacher to clean rows: it learns from ``train`` and is chosen on ``valid``, as the module says.

    ``named`` is what the encoder was loaded by. The same rows, seed and threads give the same teacher. Blocks. Raises
    TeacherError for rows of fewer than two labels.
    """
    rows = train + valid
    labels = tuple(sorted(set(rows.labels)))
    if len(labels) < 2:
        raise TeacherError(f"A teacher needs rows of two labels at least; here are rows of {len(labels)}.")
    places = {label: place for place, label in enumerate(labels)}
    truth = np.array([places[label] for label in rows.labels], np.int64)
    crossed = len(valid) < FEW or len(set(train.labels)) < len(labels)
    with own_threads(threads, seed):
        vectors = encoder.embed(rows.texts, lambda done, total: tell("embedding", done, total))
        parts = list(_folds(rows, truth, splitting)) if crossed else [_by_place(len(train), len(rows))]
        heads, strength, right = _choose(vectors, truth, parts, len(labels), tell)
        evidence = Evidence(
            rows=len(right),
            accuracy=float(right.mean()),
            frozen=float(right.mean()),
            crossed=crossed,
            strength=strength,
            learnt=len(rows) if crossed else len(train),
        )
        everything = np.arange(len(rows))
        learnt = everything if crossed else parts[0][0]
        head = _fit(vectors[learnt], truth[learnt], len(labels), strength) if crossed else heads[0]
        if not _worth_tuning(tune, len(learnt), len(labels), evidence.frozen):
            return EncoderTeacher(encoder, head, labels, evidence, named=named, threads=threads)
        original = _weights(encoder)
        first, held = parts[0]
        tuned_head = _tune(encoder, rows, truth, first, heads[0], seed, tell)
        tuned_scores = tuned_head.scores(encoder.embed([rows.texts[place] for place in held.tolist()]))
        tuned_right = tuned_scores.argmax(1) == truth[held]
        evidence = msgspec.structs.replace(evidence, tuned=float(tuned_right.mean()), tuned_rows=len(held))
        if tune is Tune.AUTO and not _better(tuned_right, right[: len(held)]):
            _put(encoder, original)
            return EncoderTeacher(encoder, head, labels, evidence, named=named, threads=threads)
        temperature = _temperature(tuned_scores, truth[held])
        if crossed:
            _put(encoder, original)
            tuned_head = _tune(encoder, rows, truth, everything, head, seed, tell)
        tuned_head = Head(tuned_head.weight / temperature, tuned_head.bias / temperature)
        return EncoderTeacher(
            encoder,
            tuned_head,
            labels,
            msgspec.structs.replace(evidence, accuracy=evidence.tuned, rows=len(held)),
            named=named,
            tuned=_weights(encoder),
            threads=threads,
        )


def open_encoder(named: str | None, *, max_tokens: int = MAX_TOKENS, download: bool = True) -> Encoder:
    """The encoder of a teacher's name. Raises TeacherError for what can't be used."""
    try:
        return load_encoder(named, max_tokens=max_tokens, download=download)
    except EncoderError as error:
        raise TeacherError(f"encoder: {error}") from None


Part = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The places of the rows that are learnt from, and of those held out."""


def _by_place(train: int, rows: int) -> Part:
    return np.arange(train), np.arange(train, rows)


def _folds(rows: Rows, truth: NDArray[np.int64], splitting: Splitting) -> Iterator[Part]:
    """Each label's rows dealt to the folds in the order of their draws, so that the order of the rows says nothing."""
    draws = splitting.draws(text_keys(rows.texts))
    order = np.lexsort((draws, truth))
    of = np.empty(len(order), np.int64)
    of[order] = np.arange(len(order)) % _FOLDS
    for fold in range(min(_FOLDS, len(order))):
        yield np.flatnonzero(of != fold), np.flatnonzero(of == fold)


def _choose(
    vectors: NDArray[np.float32], truth: NDArray[np.int64], parts: Sequence[Part], classes: int, tell: Tell
) -> tuple[list[Head], float, NDArray[np.bool_]]:
    """The head of each part, the strength of lowest log loss on rows held out, and whether each of those is right."""
    found: tuple[float, list[Head], float, NDArray[np.bool_]] | None = None
    heads: list[Head | None] = [None] * len(parts)
    steps = len(_STRENGTHS) * len(parts)
    for number, strength in enumerate(_STRENGTHS):
        losses, right, fitted = [], [], []
        for place, (learnt, held) in enumerate(parts):
            head = _fit(vectors[learnt], truth[learnt], classes, strength, heads[place])
            scores = head.scores(vectors[held])
            losses.append(-np.log(np.maximum(scores[np.arange(len(held)), truth[held]], 1e-12)))
            right.append(scores.argmax(1) == truth[held])
            fitted.append(head)
            tell("fitting", number * len(parts) + place + 1, steps)
        heads = list(fitted)
        loss = float(np.concatenate(losses).mean())
        if found is None or loss < found[0]:
            found = loss, fitted, strength, np.concatenate(right)
        else:
            # The loss falls and then rises with the strength; what comes is weaker still.
            break
    assert found is not None  # noqa: S101 - the first one is always taken
    tell("fitting", steps, steps)
    return found[1], found[2], found[3]


def _fit(
    vectors: NDArray[np.float32], truth: NDArray[np.int64], classes: int, strength: float, start: Head | None = None
) -> Head:
    """Logistic regression by L-BFGS, beginning from ``start``."""
    import torch  # noqa: PLC0415 - heavy

    inputs, wanted = torch.from_numpy(vectors), torch.from_numpy(truth)
    zero = Head(np.zeros((classes, vectors.shape[1]), np.float32), np.zeros(classes, np.float32))
    begin = start or zero
    weight = torch.tensor(begin.weight, requires_grad=True)
    bias = torch.tensor(begin.bias, requires_grad=True)
    pull = 1.0 / (2.0 * strength * len(truth))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = inputs @ weight.T + bias
        value = torch.nn.functional.cross_entropy(logits, wanted) + pull * (weight * weight).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return Head(weight.detach().numpy(), bias.detach().numpy())


def _worth_tuning(tune: Tune, rows: int, labels: int, frozen: float) -> bool:
    if tune is Tune.AUTO:
        return rows >= max(_LEAST_TUNED, _LEAST_TUNED_A_CLASS * labels) and frozen < _GOOD_ENOUGH
    return tune is Tune.ALWAYS


def _better(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> bool:
    """Whether one is right on more of the same rows than the other, by more than one standard deviation of chance."""
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return bool(gained - lost > np.sqrt(gained + lost))


def _tune(
    encoder: Encoder,
    rows: Rows,
    truth: NDArray[np.int64],
    learnt: NDArray[np.int64],
    head: Head,
    seed: int,
    tell: Tell,
) -> Head:
    """Train the encoder's weights, in place, and the head on; one-cycle AdamW."""
    import torch  # noqa: PLC0415 - heavy

    encoder.forget()
    torch.manual_seed(seed)
    randomness = np.random.default_rng(seed)
    tokens = encoder.tokens([rows.texts[place] for place in learnt.tolist()])
    wanted = torch.from_numpy(truth[learnt])
    weight, bias = torch.tensor(head.weight, requires_grad=True), torch.tensor(head.bias, requires_grad=True)
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, round(_PASSES / len(tokens))))
    batches = [batch for _ in range(epochs) for batch in _shuffled(tokens, randomness)]
    solver = torch.optim.AdamW(
        [
            {"params": list(encoder.model.parameters()), "lr": _RATE, "weight_decay": 0.01},
            {"params": [weight, bias], "lr": _HEAD_RATE, "weight_decay": 0.0},
        ],
        # A step of the other kinds takes a fifth of the time of its batch.
        fused=True,
    )
    course = torch.optim.lr_scheduler.OneCycleLR(
        solver, [_RATE, _HEAD_RATE], total_steps=len(batches) + 1, pct_start=0.1
    )
    encoder.model.train()
    for number, places in enumerate(batches, 1):
        logits = encoder.pooled([tokens[place] for place in places]) @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, wanted[places], label_smoothing=_SMOOTHING)
        solver.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        solver.step()
        course.step()
        tell("tuning", number, len(batches))
    encoder.model.eval()
    return Head(weight.detach().numpy(), bias.detach().numpy())


def _shuffled(tokens: Sequence[Sequence[int]], randomness: np.random.Generator) -> list[list[int]]:
    """One epoch: batches of like lengths out of windows of rows in random order, themselves in random order."""
    order = randomness.permutation(len(tokens))
    batches: list[list[int]] = []
    for first in range(0, len(order), _WINDOW):
        window = sorted(order[first : first + _WINDOW].tolist(), key=lambda place: len(tokens[place]))
        batches += [window[at : at + _TUNED_BATCH] for at in range(0, len(window), _TUNED_BATCH)]
    return [batches[place] for place in randomness.permutation(len(batches)).tolist()]


def _temperature(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature of lowest log loss."""
    logits: NDArray[np.float32] = np.log(np.maximum(scores, 1e-12)).astype(np.float32)
    rows = np.arange(len(truth))
    losses = [
        float(-np.log(np.maximum(_softmax((logits / one).astype(np.float32))[rows, truth], 1e-12)).mean())
        for one in _TEMPERATURES
    ]
    return _TEMPERATURES[int(np.argmin(losses))]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: NDArray[np.float32] = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return scores


def _weights(encoder: Encoder) -> dict[str, NDArray[np.float32]]:
    """A copy of the encoder's weights."""
    state: dict[str, Any] = encoder.model.state_dict()
    return {name: one.detach().numpy().copy() for name, one in state.items() if one.dtype.is_floating_point}


def _put(encoder: Encoder, weights: dict[str, NDArray[np.float32]]) -> None:
    """Put ``weights`` in the place of the encoder's. Raises KeyError or RuntimeError for what does not fit."""
    import torch  # noqa: PLC0415 - heavy

    state: dict[str, Any] = encoder.model.state_dict()
    if missing := {name for name, one in state.items() if one.dtype.is_floating_point} ^ weights.keys():
        raise KeyError(min(missing))
    encoder.forget()
    encoder.model.load_state_dict(state | {name: torch.from_numpy(one.copy()) for name, one in weights.items()})
