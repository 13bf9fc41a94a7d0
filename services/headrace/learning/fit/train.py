"""From split rows to a network, top to bottom: features, fits, early stopping, compression, refit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.core.text import quantity
from headrace.files import DatasetError
from headrace.learning.compress.curve import Budget, Curve, Point
from headrace.learning.compress.search import Compressor
from headrace.learning.data.features import MOST_CELLS, Material, fit_wide_part, prepare
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts
from headrace.learning.data.taught import Taught
from headrace.learning.data.vectors import known_vectors
from headrace.learning.data.vocabulary import Embed, seen_vectors, spelled, word_parts
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import Checkpoints
from headrace.learning.evaluate import answer_scored, share_interval, threshold_for
from headrace.learning.fit.blend import (
    UNUSED,
    BlendWeights,
    assemble_network,
    beyond_chance,
    fit_blend,
    fit_scale,
    losses,
)
from headrace.learning.fit.convolution import ConvolutionFit, TextCNN, convolution_logits, fresh_network
from headrace.learning.fit.hyperparameters import Recipe, teaching_of
from headrace.learning.fit.teaching import NOTHING, Choice, Fold, Lessons, Option, Reteach, as_split, cross_folds
from headrace.learning.fit.wide import wide_logits
from headrace.learning.resources import Sizes, require_memory, training_bytes
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.network import Network
from headrace.model.quantizing import Bits, quantize

_WHOLE = Bits()


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training rows: ``number`` from 1, the convolution's mean training loss, and on the validation
    rows the accuracy and cross entropy (nats) of both parts joined by ``weights``.
    """

    number: int
    loss: float
    accuracy: float
    cross_entropy: float
    # Checkpoints of older trainings call them shares.
    weights: BlendWeights = msgspec.field(name="shares")


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A network and how it came about.

    ``original``: the network before compression, ``curve`` what was tried to make it smaller; without a budget there is
    none, and ``network`` is the original. ``bits``: what a value of ``network`` is to be quantized to. ``epochs``: of
    the search, ``chosen``: the one whose length and weights were taken. ``threshold``: the score that the wanted share
    of the validation rows reaches, if one was wanted. ``choices``: what machine rows were tried to count, the one
    taken first; none where there are no machine rows.
    """

    network: Network
    bits: Bits
    original: Network
    curve: Curve | None
    epochs: tuple[Epoch, ...]
    chosen: Epoch
    threshold: float | None
    choices: tuple[Choice, ...] = ()


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what: each ``epoch`` of the search, each ``point`` that compression tried, and of each epoch of the
    ``refit`` its number and how many there will be. Before all of them ``memory`` is told how many bytes a rank takes
    and how many it may. With machine rows there is a search for each ``choice`` of what they count, told behind it.
    """

    memory: Callable[[int, int], None] = lambda *_: None

    choice: Callable[[Choice], None] = lambda _: None
    epoch: Callable[[Epoch], None] = lambda _: None
    point: Callable[[Point], None] = lambda _: None
    refit: Callable[[int, int], None] = lambda *_: None


def train(
    parts: Parts,
    recipe: Recipe,
    exchange: Exchange,
    checkpoints: Checkpoints,
    *,
    clock: Callable[[], float],
    budget: Budget | None = None,
    accept: float | None = None,
    steps: Steps = Steps(),  # noqa: B008 - frozen
    free: int | None = None,
    embed: Embed | None = None,
    reteach: Reteach | None = None,
) -> Trained:
    """Train with ``recipe``, each rank on its ``parts``; the network is the same on every rank.

    Equal rows, recipe and ranks give an equal network on machines of one kind, interrupted or not.

    Two fits. The first, on the training rows, is followed on the validation rows to find how many epochs the
    convolution takes and what each part's logits are multiplied by; with a ``budget``, what can be pruned; and the
    score that the share ``accept`` of these rows reaches. The second fits both parts afresh on training and validation
    rows together, with these numbers. ``clock``, in seconds, only tells how fast a network is. ``free``: how many
    bytes of memory this rank may take. Raises DatasetError for fewer than two classes, and on every rank where one
    would take more memory than it may.

    Where ``parts`` have machine rows they train beside the human rows in both fits. There is a first fit for each of
    the recipe's weights of such a row, and the best one's weight is taken. Where the validation rows are too few to
    choose by, the human rows are divided into folds, each of which is validated on by a fit on the others; compression
    and threshold then go by the first fold. ``embed``: a teacher's view of texts, which words begin from and by which
    neighbours mend its labels; ``reteach``: the teacher as it is without some of the human rows, if it learnt from
    them. Without it a teacher that did makes the figures on folds too good (:attr:`Choice.apart`).
    """
    require_classes(parts)
    with _deterministic(recipe.threads):
        # The first fit: on the training rows, validated after each epoch.
        searched, choices, taught = _choose(parts, recipe, exchange, checkpoints, steps, free, embed, reteach)
        chosen = best_epoch(searched.epochs)
        # On the validation rows: how much smaller it may be, and below which score it abstains.
        compressor = Compressor(searched.valid.texts, searched.targets, chosen.weights, recipe, exchange, clock)
        settled = _settle(searched, compressor, exchange, checkpoints, budget, accept, steps)
        # The second fit: on training and validation rows, as long as the best epoch of the first.
        rows = parts.split.train + parts.split.valid
        material = prepare(rows, parts.labels, recipe, exchange, taught=taught)
        wide = fit_wide_part(material, recipe, exchange)
        texts = rows.texts if taught is None else rows.texts + taught.texts
        convolution = _refit(texts, material, recipe, exchange, checkpoints, chosen.number, steps, embed)
        original = assemble_network(
            parts.labels, recipe.max_tokens, material.vocabulary, convolution, wide, chosen.weights
        )
        network, bits = original, _WHOLE
        if settled.curve is not None:
            network = compressor.follow(settled.curve.chosen, original, material)
            bits = settled.curve.chosen.plan.bits
    return Trained(
        network=network,
        bits=bits,
        original=original,
        curve=settled.curve,
        epochs=searched.epochs,
        chosen=chosen,
        threshold=settled.threshold,
        choices=choices,
    )


def require_classes(parts: Parts) -> None:
    """Raise DatasetError where there is nothing to tell apart."""
    if len(parts.labels) < 2:
        raise DatasetError(f"training needs at least two classes, but all rows are {parts.labels[0]!r}")


class _Searched(msgspec.Struct, frozen=True, kw_only=True):
    """The epochs of the search, and the network of the best of them with the rows that it was trained on and those
    that it is validated on; of several folds the first one's.
    """

    epochs: tuple[Epoch, ...]
    network: Network
    material: Material
    valid: Rows
    targets: NDArray[np.int64]
    """Of the validation rows."""
    losses: NDArray[np.float32]
    """What each validation row of all folds and ranks loses in the best epoch, in nats."""


def _choose(
    parts: Parts,
    recipe: Recipe,
    exchange: Exchange,
    checkpoints: Checkpoints,
    steps: Steps,
    free: int | None,
    embed: Embed | None,
    reteach: Reteach | None,
) -> tuple[_Searched, tuple[Choice, ...], Taught | None]:
    """The best search over what machine rows may be; without machine rows there is one search.

    Of machine rows that count something the wide part alone, which is fitted in a moment, chooses which are tried.
    """
    folds, rows = _folds(parts, recipe, exchange)
    if not parts.machine_rows:
        nothing = [None] * len(folds)
        return _search(folds, parts, nothing, recipe, exchange, checkpoints, "search", steps, free, embed), (), None
    teaching, lessons = teaching_of(recipe), Lessons(parts, embed, reteach, exchange)
    share = lessons.best_spread(folds, teaching.spreads)
    options = [Option(weight, share) for weight in teaching.weights if weight]
    if len(options) > 1:
        options = [min(options, key=lambda one: _wide_alone(folds, parts, lessons, one, recipe, exchange))]
    # Nothing can be learnt without machine rows where there are no others.
    if parts.rows and 0 in teaching.weights:
        options.append(NOTHING)
    found: list[tuple[Choice, _Searched]] = []
    for place, option in enumerate(options):
        taught = [lessons.taught(option, fold.known) for fold in folds]
        searched = _search(folds, parts, taught, recipe, exchange, checkpoints, f"search-{place}", steps, free, embed)
        best = best_epoch(searched.epochs)
        choice = Choice(
            weight=option.weight,
            spread=option.spread,
            rows=rows,
            folds=len(folds),
            accuracy=best.accuracy,
            interval=share_interval(round(best.accuracy * rows), rows),
            cross_entropy=best.cross_entropy,
            apart=reteach is not None or len(folds) == 1,
        )
        found.append((choice, searched))
        steps.choice(choice)
    # Without them only where that is better by more than chance: of few rows chance would leave out a good teacher.
    if len(found) == 2 and exchange.gather(beyond_chance(found[0][1].losses - found[1][1].losses), bool)[0]:
        found.reverse()
    chosen = found[0][0]
    everything = np.ones(len(parts.split.train) + len(parts.split.valid), np.bool_)
    taught_all = lessons.taught(Option(chosen.weight, chosen.spread), everything)
    return found[0][1], tuple(choice for choice, _ in found), taught_all


def _folds(parts: Parts, recipe: Recipe, exchange: Exchange) -> tuple[list[Fold], int]:
    """The divisions to choose by, and how many rows they validate on, of all ranks."""
    valid = sum(exchange.gather(len(parts.split.valid), int))
    least = teaching_of(recipe).least_valid if parts.machine_rows else recipe.least_valid
    if valid >= least or parts.unproven:
        return [as_split(parts)], valid
    folds = cross_folds(parts, recipe.folds, exchange)
    validated = [sum(exchange.gather(len(fold.valid), int)) for fold in folds]
    # Of few rows a fold may have none to validate.
    folds = [fold for fold, count in zip(folds, validated, strict=True) if count]
    if folds:
        return folds, sum(validated)
    if valid and not parts.machine_rows:
        return [as_split(parts)], valid
    raise DatasetError(
        f"{quantity(parts.rows, 'labelled row')} can't show what a teacher's labels are worth: no label "
        "has two texts of which one can be learnt from and the other asked about. Label a few more texts"
    )


def _wide_alone(
    folds: Sequence[Fold], parts: Parts, lessons: Lessons, option: Option, recipe: Recipe, exchange: Exchange
) -> float:
    """The cross entropy of the wide part on the validation rows of all folds and ranks, once it is calibrated."""
    own = []
    for fold in folds:
        taught = lessons.taught(option, fold.known)
        material = prepare(fold.train, parts.labels, recipe, exchange, taught=taught)
        valid = prepare(fold.valid, parts.labels, recipe, exchange, material.vocabulary)
        logits = wide_logits(*fit_wide_part(material, recipe, exchange), valid.features()).numpy()
        own.append(_Answers(np.zeros_like(logits), logits, valid.targets.astype(np.int64)))
    _, wide, targets = _joined(own, exchange)
    return exchange.gather(float(losses(fit_scale(wide, targets) * wide, targets).mean()), float)[0]


def _search(  # noqa: PLR0917
    folds: Sequence[Fold],
    parts: Parts,
    lessons: Sequence[Taught | None],
    recipe: Recipe,
    exchange: Exchange,
    checkpoints: Checkpoints,
    checkpoint: str,
    steps: Steps,
    free: int | None,
    embed: Embed | None,
) -> _Searched:
    """Fit the wide part, then the convolution epoch by epoch until validation stops improving (early stopping).

    Of several ``folds`` all are fitted side by side, each with the machine rows of ``lessons``, and validated together.
    """
    fits, rows, first = [], [], None
    for fold, taught in zip(folds, lessons, strict=True):
        # Features: the rows as arrays, and the vocabulary of all ranks.
        material = prepare(fold.train, parts.labels, recipe, exchange, taught=taught)
        if free is not None:
            _require_memory(material, parts, recipe, exchange, steps, free, len(folds))
        wide = fit_wide_part(material, recipe, exchange)
        valid = prepare(fold.valid, parts.labels, recipe, exchange, material.vocabulary)
        rows.append(Validation(valid.rows(), wide_logits(*wide, valid.features()), torch.from_numpy(valid.targets)))
        texts = fold.train.texts if taught is None else fold.train.texts + taught.texts
        fits.append(_fit(texts, material, recipe, exchange, embed))
        first = first or (material, wide)
    assert first is not None  # noqa: S101 - there is one fold at least
    epochs: list[Epoch] = []
    best: dict[str, torch.Tensor] = {}
    lost = np.empty(0, np.float32)
    # A search of before 2026-11-30 kept no losses and validated otherwise: it begins anew.
    if (kept := checkpoints.load(checkpoint)) is not None and "lost" in kept:
        for fit, state in zip(fits, kept["fits"], strict=True):
            fit.restore(state)
        epochs, best, lost = msgspec.convert(kept["epochs"], list[Epoch]), kept["best"], kept["lost"].numpy()
    while fits[0].done < recipe.convolution.epochs and goes_on(epochs, recipe.patience):
        loss = float(np.mean([fit.epoch() for fit in fits]))
        networks = [fit.network for fit in fits]
        epoch, losses_of_epoch = validate_epoch(networks, rows, exchange, number=fits[0].done, loss=loss)
        epochs.append(epoch)
        if best_epoch(epochs) is epoch:
            best, lost = deepcopy(networks[0].state_dict()), losses_of_epoch
        told = {"fits": [fit.state() for fit in fits], "epochs": msgspec.to_builtins(epochs), "best": best}
        checkpoints.save(checkpoint, told | {"lost": torch.from_numpy(lost)})
        steps.epoch(epochs[-1])
    network = fits[0].network
    network.load_state_dict(best)
    weights = best_epoch(epochs).weights
    material, wide = first
    return _Searched(
        epochs=tuple(epochs),
        network=assemble_network(parts.labels, recipe.max_tokens, material.vocabulary, network, wide, weights),
        material=material,
        valid=folds[0].valid,
        targets=rows[0].targets.numpy(),
        losses=lost,
    )


class Validation(msgspec.Struct, frozen=True):
    """The rank's validation rows: ``texts`` as word rows, ``wide`` float32[texts, C] the logits of the fitted wide
    part for them, ``targets`` int64[texts].
    """

    texts: Sequence[NDArray[np.int64]]
    wide: torch.Tensor
    targets: torch.Tensor


class _Answers(msgspec.Struct, frozen=True):
    """Of a rank's validation rows: the logits of both parts, float32[texts, C], and the targets, int64[texts]."""

    convolution: NDArray[np.float32]
    wide: NDArray[np.float32]
    targets: NDArray[np.int64]


def validate_epoch(
    networks: Sequence[TextCNN], folds: Sequence[Validation], exchange: Exchange, *, number: int, loss: float
) -> tuple[Epoch, NDArray[np.float32]]:
    """Blend both parts and measure the blend on the validation rows of all ranks, those of each fold by its network;
    the same on every rank. Also the cross entropy of each row.
    """
    own = [
        _Answers(convolution_logits(network, rows.texts).numpy(), rows.wide.numpy(), rows.targets.numpy())
        for network, rows in zip(networks, folds, strict=True)
    ]
    convolution, wide, wanted = _joined(own, exchange)
    weights = fit_blend(convolution, wide, wanted)
    blended = weights.convolution * convolution + weights.wide * wide
    lost = losses(blended, wanted)
    epoch = Epoch(
        number=number,
        loss=loss,
        accuracy=float((blended.argmax(dim=1) == wanted).double().mean()),
        cross_entropy=float(lost.mean()),
        weights=weights,
    )
    # Rank 0 decides: sums on another kind of machine may end in other bits.
    return exchange.gather(epoch, Epoch)[0], lost


def _joined(own: list[_Answers], exchange: Exchange) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The answers of all folds and ranks: the logits of both parts, and the targets."""
    told = [one for of_rank in exchange.gather(own, list[_Answers]) for one in of_rank]
    convolution, wide, targets = (
        torch.from_numpy(np.concatenate(parts)) for parts in zip(*map(msgspec.structs.astuple, told), strict=True)
    )
    return convolution, wide, targets


def goes_on(epochs: Sequence[Epoch], patience: int) -> bool:
    """Whether the blend has improved within the last ``patience`` epochs, or the convolution is of no use yet: of few
    rows and many classes it learns for long before it is.

    It improves when its cross entropy falls. Accuracy would not show that the convolution has become overconfident.
    """
    if all(epoch.weights.convolution <= UNUSED for epoch in epochs):
        return True
    return epochs[-1].number - best_epoch(epochs).number < patience


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest cross entropy, the first of equals."""
    return min(epochs, key=lambda epoch: epoch.cross_entropy)


class _Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What the validation rows settled beside length and weights."""

    curve: Curve | None
    threshold: float | None


def _settle(
    searched: _Searched,
    compressor: Compressor,
    exchange: Exchange,
    checkpoints: Checkpoints,
    budget: Budget | None,
    accept: float | None,
    steps: Steps,
) -> _Settled:
    if (kept := checkpoints.load("settled")) is not None:
        return msgspec.convert(kept, _Settled)
    network, bits, curve = searched.network, _WHOLE, None
    if budget is not None:
        found = compressor.search(network, searched.material, budget, steps.point)
        network, curve = found.network, found.curve
        bits = curve.chosen.plan.bits
    threshold = None
    if accept is not None:
        backend = open_backend("cpu", assemble(quantize(network, bits), About()))
        scores = exchange.gather(answer_scored(backend, searched.valid.texts).scores, tuple[float, ...])
        threshold = threshold_for([score for own in scores for score in own], accept)
    settled = _Settled(curve=curve, threshold=threshold)
    checkpoints.save("settled", msgspec.to_builtins(settled))
    return settled


def _refit(
    texts: Sequence[str],
    material: Material,
    recipe: Recipe,
    exchange: Exchange,
    checkpoints: Checkpoints,
    epochs: int,
    steps: Steps,
    embed: Embed | None,
) -> TextCNN:
    fit = _fit(texts, material, recipe, exchange, embed)
    if (kept := checkpoints.load("refit")) is not None:
        fit.restore(kept)
    while fit.done < epochs:
        fit.epoch()
        checkpoints.save("refit", fit.state())
        steps.refit(fit.done, epochs)
    return fit.network


def _fit(
    texts: Sequence[str], material: Material, recipe: Recipe, exchange: Exchange, embed: Embed | None
) -> ConvolutionFit:
    words = spelled(texts, material.texts, material.vocabulary.words, exchange)
    parts = word_parts(words, least=recipe.convolution.least_part, most=recipe.convolution.most_part)
    known = known_vectors(material.vocabulary.words, recipe.convolution, recipe.seed)
    if embed is not None:
        seen = seen_vectors(words, embed, recipe.convolution.dimensions, teaching_of(recipe).word_scale, exchange)
        known = seen if known is None else known + seen
    return ConvolutionFit(
        fresh_network(len(words), len(material.labels), recipe.convolution, recipe.seed, parts=parts, known=known),
        material.rows(),
        material.targets,
        recipe=recipe.convolution,
        seed=recipe.seed,
        exchange=exchange,
    )


def _require_memory(
    material: Material, parts: Parts, recipe: Recipe, exchange: Exchange, steps: Steps, free: int, networks: int
) -> None:
    """Raises DatasetError, on every rank, when one has too little memory for what comes, of which the refit is most."""
    kept, labels, texts = material.vocabulary, len(parts.labels), len(material.texts)
    more = 1 + len(parts.split.valid) / max(1, texts)
    sizes = Sizes(
        columns=min(round(more * kept.columns), MOST_CELLS // labels),
        words=round(more * len(kept.words)),
        labels=labels,
        texts=round(more * texts),
        features=round(more * 2 * len(material.texts.hashes)),
        valid=len(parts.split.valid),
        networks=networks,
    )
    need = training_bytes(sizes, recipe)
    steps.memory(need, free)
    for told in exchange.gather((need, free), tuple[int, int]):
        require_memory(*told, labels)


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Within, equal inputs give equal sums: a fixed number of threads, and only algorithms that keep an order."""
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms, which would import torch's compiler first: seconds for nothing.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
