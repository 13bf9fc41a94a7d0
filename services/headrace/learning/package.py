"""A trained network as a version: quantized, examined as it will answer, with texts by which a worker can test it."""

from __future__ import annotations

import msgspec

from headrace.learning.compress.curve import figures
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import MachineSource
from headrace.learning.evaluate import (
    Examined,
    Report,
    agreement,
    answer,
    calibration_error,
    compare,
    examine,
    profile_of,
)
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.train import Trained
from headrace.model.artifact import About, Artifact, Canary, assemble, library_versions
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.quantizing import quantize
from headrace_schemas.records import Lineage, OffsetRange

_MOST_CANARIES = 16
_CANARY_CHARACTERS = 200


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact, the test report of its int8 answers and of the fp32 original, and the share of equal answers.

    ``examined`` has the answers themselves; ``backend`` gave them, and answers as one of the artifact would.
    """

    artifact: Artifact
    report: Report
    float_report: Report
    agreement: float
    examined: Examined
    backend: Backend


def pack(
    trained: Trained,
    parts: Parts,
    lineage: Lineage,
    exchange: Exchange,
    *,
    created_at_ms: int | None = None,
    parent: str | None = None,
) -> Packed:
    """Quantize the network and examine it on the test rows of all ranks by the cpu backend; equal on every rank.

    Equal arguments give an artifact of equal SHA-256: it holds no time but ``created_at_ms``. Raises ValueError for a
    network that the integers can't hold.
    """
    quantized = quantize(trained.network, trained.bits)
    bare = assemble(quantized, About())
    backend = open_backend("cpu", bare)
    test = parts.split.test
    examined = examine(backend, trained.original, test, exchange)
    truth, answers = examined.truth, examined.answers
    learnt = trained.network.labels
    report = compare(truth, answers.labels, learnt=learnt)
    float_report = compare(truth, examined.float_answers, learnt=learnt)
    equal = agreement(answers.labels, examined.float_answers)
    right = [label == given for label, given in zip(truth, answers.labels, strict=True)]
    about = About(
        created_at_ms=created_at_ms,
        parent=parent,
        lineage=_with_choice(lineage, parts, trained),
        metrics={
            "test_rows": float(report.rows),
            "test_accuracy": report.accuracy,
            "test_accuracy_low": report.accuracy_interval[0],
            "test_accuracy_high": report.accuracy_interval[1],
            "test_macro_f1": report.macro_f1,
            "test_macro_f1_low": report.macro_f1_interval[0],
            "test_macro_f1_high": report.macro_f1_interval[1],
            "test_accuracy_fp32": float_report.accuracy,
            "test_macro_f1_fp32": float_report.macro_f1,
            "test_calibration_error": calibration_error(answers.scores, right),
            "agreement_fp32": equal,
            **_of_choice(trained),
            **({"machine_disagreements": float(parts.disagreements)} if parts.disagreements else {}),
        },
        compression={}
        if trained.curve is None
        else figures(trained.curve, trained.original, trained.network, bare.size),
        libraries=library_versions(),
        canaries=_canaries(backend, test, exchange),
        untested=report.untested,
        profile=profile_of(answers, trained.network.labels),
        threshold=trained.threshold,
    )
    return Packed(
        artifact=assemble(quantized, about),
        report=report,
        float_report=float_report,
        agreement=equal,
        examined=examined,
        backend=backend,
    )


def _with_choice(lineage: Lineage, parts: Parts, trained: Trained) -> Lineage:
    """What the training chose to learn from machine rows, where there were any."""
    if not trained.choices:
        return lineage
    weight = trained.choices[0].weight
    return msgspec.structs.replace(
        lineage,
        machine_rows=parts.machine_rows if weight else 0,
        machine_weight=weight,
        teachers=parts.taught.origins,
        unproven=parts.unproven,
    )


def _of_choice(trained: Trained) -> dict[str, float]:
    """What was chosen, and how sure that is: the figures on the validation rows, in turn where there are folds."""
    if not trained.choices:
        return {}
    taken = trained.choices[0]
    return {
        "machine_spread": taken.spread,
        "validation_rows": float(taken.rows),
        "validation_folds": float(taken.folds),
        "validation_apart": float(taken.apart),
        "validation_accuracy": taken.accuracy,
        "validation_accuracy_low": taken.interval[0],
        "validation_accuracy_high": taken.interval[1],
    }


def lineage_of(
    parts: Parts,
    source: str,
    recipe: Recipe,
    exchange: Exchange,
    offsets: tuple[OffsetRange, ...] = (),
    machine: MachineSource | None = None,
) -> Lineage:
    """What a version is trained on: ``source`` is a name, ``machine`` where teachers' labels came from."""
    return Lineage(
        source=source,
        digest=parts.digest,
        rows=parts.rows,
        offsets=offsets,
        dropped=parts.dropped,
        recipe=msgspec.json.encode(recipe).decode(),
        ranks=exchange.world,
        split=parts.splitting,
        holdout=parts.holdout,
        lent=parts.split.moved.lent,
        borrowed=parts.split.moved.borrowed,
        unlearnt=parts.unlearnt,
        machine_offsets=() if machine is None else machine.ranges,
        teacher_weights={} if machine is None else {of: n for of, n in sorted(machine.teachers.items()) if n != 1},
    )


def _canaries(backend: Backend, rows: Rows, exchange: Exchange) -> tuple[Canary, ...]:
    """The beginning of one text of each of the first classes, with the label that this version gives it."""
    own = dict(zip(reversed(rows.labels), reversed(rows.texts), strict=True))
    first_of_class = {
        label: text for found in reversed(exchange.gather(own, dict[str, str])) for label, text in found.items()
    }
    texts = [first_of_class[label][:_CANARY_CHARACTERS] for label in sorted(first_of_class)[:_MOST_CANARIES]]
    return tuple(Canary(text, label) for text, label in zip(texts, answer(backend, texts), strict=True))
