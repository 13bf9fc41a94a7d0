"""The versions of the learning demo: the labels they are trained on, their trainings, and the swaps to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

import msgspec
from rich.table import Table

from headrace.client import Answer
from headrace.client.labels import Labelled
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.demo.screen import milliseconds
from headrace.demo.setup import as_options, demo_settings
from headrace.demo.stream import Sent, Snapshot
from headrace.kafka.settings import KafkaSettings
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Part
from headrace.learning.data.validation import text_keys
from headrace.model.artifact import Artifact
from headrace.process.children import Child, child, headrace, output_of
from headrace.registry.compacted_topics import ModelsLog, Move
from headrace.trainer.settings import TrainerSettings
from headrace_schemas.records import ModelVersion, Training, TrainingState, Verdict

RANKS = 2
EPOCHS = 6
SETTLE_S = 1.0
# Its ranks have ten seconds of it.
TRAINER_GRACE_S = 15.0


def learning_settings(kafka: KafkaSettings, prefix: str, store: Path) -> Settings:
    """Everything that the trainer and the workers are told: these follow the alias that the trainer moves.

    A training begins as soon as labels have been quiet for SETTLE_S, and is short; all else is as always.
    """
    settings = demo_settings(kafka, prefix, CHAMPION)
    trainer = TrainerSettings(
        group=f"{prefix}trainer", store=str(store), ranks=RANKS, epochs=EPOCHS, settle=SETTLE_S, least_rows=1
    )
    return msgspec.structs.replace(settings, trainer=trainer)


def trainer(settings: Settings, *, environ: Mapping[str, str], folder: Path) -> AbstractAsyncContextManager[Child]:
    """Run a trainer with ``settings`` while the block runs."""
    return child(
        headrace(*as_options(settings), "trainer"),
        name="`headrace trainer`",
        environ=environ,
        folder=folder,
        log=folder / "trainer.log",
        grace_s=TRAINER_GRACE_S,
    )


async def by_hand(settings: Settings, *command: str, environ: Mapping[str, str], folder: Path) -> str:
    """Run `headrace models` and return the last line that it prints. Raises ProgramError when it fails."""
    name = f"`headrace models {' '.join(command)}`"
    arguments = headrace(*as_options(settings), "models", *command)
    printed = await output_of(arguments, name=name, environ=environ, folder=folder)
    return printed.rstrip().rpartition("\n")[2]


CHAMPION = "champion"
LOOK_S = 0.1
LIMIT_S = 900.0


class TrainingEndedError(UserError):
    """A training failed, or had no end in LIMIT_S."""


class Made(msgspec.Struct, frozen=True):
    """A training that is done, its version, and what the gate says of it."""

    training: Training
    version: ModelVersion
    verdict: Verdict


async def training_begun(log: ModelsLog, name: str, before: str | None, clock: Clock) -> Training:
    """Wait for a training of model ``name`` with another id than ``before``. Raises TrainingEndedError."""
    until = clock.monotonic() + LIMIT_S
    while (found := log.trainings.get(name)) is None or found.id == before:
        await _look(log, until, "begun no training", clock)
    return found


async def made_by(training: Training, log: ModelsLog, clock: Clock) -> Made:
    """Wait for the end of ``training``. Raises TrainingEndedError when it fails."""
    until = clock.monotonic() + LIMIT_S
    while (found := log.trainings[training.name]).state is TrainingState.RUNNING:
        await _look(log, until, f"not ended training {training.id}", clock)
    if found.version is None:
        raise TrainingEndedError(f"Training {found.id} failed: {found.error}")
    key = (found.name, found.version)
    return Made(found, log.versions[key], log.verdicts[key])


async def _look(log: ModelsLog, until: float, missed: str, clock: Clock) -> None:
    if clock.monotonic() > until:
        raise TrainingEndedError(f"The trainer has {missed} in {LIMIT_S:.0f} s.")
    await clock.sleep(LOOK_S)
    await log.refresh()


class Keyed(Labelled, frozen=True, kw_only=True):
    """A labelled text with its ``key``, which makes two texts the same to training."""

    key: bytes


def in_two_parts(rows: Rows, share: float, random: Random) -> tuple[list[Keyed], list[Keyed]]:
    """Give each of ``rows`` an id and divide them by chance: the first part is ``share`` of all."""
    columns = zip(rows.texts, rows.labels, text_keys(rows.texts), strict=True)
    labelled = [Keyed(f"text-{number}", text, label, key=key) for number, (text, label, key) in enumerate(columns)]
    random.shuffle(labelled)
    first = round(share * len(labelled))
    return labelled[:first], labelled[first:]


def to_forget(learnt: Sequence[Keyed], coming: Sequence[Keyed], version: Artifact) -> list[Keyed]:
    """Texts whose erasure shows most: one that ``version`` was trained on, and one that it quotes to test itself.

    With each go all that are the same text, of those ``learnt`` and of those that are ``coming``.
    """
    labelled = [*learnt, *coming]
    quoted = ({one.key for one in labelled if one.text.startswith(canary.text)} for canary in version.about.canaries)
    # Where several texts begin alike nobody can say which of them is quoted.
    forgotten = next((keys for keys in quoted if len(keys) == 1), set[bytes]())
    forgotten |= {next(one.key for one in learnt if UNKEYED.part_of(one.key) is Part.TRAIN)}
    return [one for one in labelled if one.key in forgotten]


def quotes(version: Artifact, texts: Iterable[Labelled]) -> int:
    """How many canaries of ``version`` are the beginning of one of ``texts``."""
    return sum(any(one.text.startswith(canary.text) for one in texts) for canary in version.about.canaries)


BESIDE_MS = 1000


class Waited(msgspec.Struct, frozen=True):
    """A text of the stream: when it was due (ms since the Unix epoch), how long its answer took to be read (seconds),
    and where, when (the answer's own time stamp) and by which version it was answered.
    """

    due_ms: float
    seconds: float
    partition: int
    answered_ms: int
    version: str


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """From the alias's record to the first answer of the version, and to the last partition's first one, in seconds.

    ``worst`` is the longest wait, in seconds, of the ``beside`` texts that were due within BESIDE_MS of those two.
    """

    first: float
    everywhere: float
    worst: float
    beside: int


class Observed:
    """Takes note of every answer of the stream, of which it holds a line each."""

    def __init__(self, clock: Clock) -> None:
        # What is due is said by a clock that has no date.
        self._epoch_ms = clock.now_ms() - 1000 * clock.monotonic()
        self.waits: list[Waited] = []
        self.runs: dict[int, list[str]] = {}
        """Of each partition the versions that answered, in the order of the requests, a row of one version once."""
        self.scored: Counter[str] = Counter()
        """How many texts whose true label is known each version answered."""
        self.right: Counter[str] = Counter()
        """How many of them it gave that label."""

    def note(self, sent: Sent, answer: Answer, now: float) -> None:
        """Take note of an answer read at ``now``, in seconds of the clock."""
        version = answer.result.version
        runs = self.runs.setdefault(answer.partition, [])
        if runs[-1:] != [version]:
            runs.append(version)
        if sent.truth is not None:
            self.scored[version] += 1
            self.right[version] += answer.result.label == sent.truth
        if sent.due is not None:
            due_ms = self._epoch_ms + 1000 * sent.due
            self.waits.append(Waited(due_ms, now - sent.due, answer.partition, answer.timestamp_ms, version))

    def answering(self, partitions: int) -> frozenset[str] | None:
        """The versions of the last answers, None as long as not all ``partitions`` have one."""
        return frozenset(runs[-1] for runs in self.runs.values()) if len(self.runs) == partitions else None


def swap(waits: Collection[Waited], move: Move) -> Swap:
    """What the swap by ``move`` was like. Raises ValueError when its version has answered nothing since."""
    version, moved_ms = move.alias.version, move.recorded_ms
    firsts: dict[int, int] = {}
    for one in waits:
        if one.version == version and one.answered_ms >= moved_ms:
            firsts[one.partition] = min(one.answered_ms, firsts.get(one.partition, one.answered_ms))
    if not firsts:
        raise ValueError(f"{version} has answered nothing since the alias was moved to it")
    first, last = min(firsts.values()), max(firsts.values())
    begin, end = moved_ms - BESIDE_MS, last + BESIDE_MS
    beside = [one.seconds for one in waits if begin <= one.due_ms <= end]
    return Swap(
        first=(first - moved_ms) / 1000,
        everywhere=(last - moved_ms) / 1000,
        worst=max(beside),
        beside=len(beside),
    )


def in_order(runs: Collection[Sequence[str]], champions: Sequence[str]) -> bool:
    """Whether every partition was answered by the ``champions`` one after another, and by nothing else."""
    return all(list(one) == list(champions) for one in runs)


FIGURES = (
    "(a wait is from when a text was due to be published to when its answer reached the reader; beside: due from "
    f"{BESIDE_MS / 1000:g} s before the alias moved to as long after the last partition had the version; trainings and "
    "commands compute on the same cores)"
)


def made_lines(of: Made) -> list[str]:
    """How a version was trained, and the gate's verdict."""
    version, lineage = of.version, of.version.lineage
    took_s = ((of.training.ended_at_ms or 0) - of.training.begun_at_ms) / 1000
    labels = quantity(len(version.labels), "label")
    lines = [f"{version.version}: {version.size / 1e6:.2f} MB, {labels}, after {took_s:.0f} s"]
    if lineage is not None:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in lineage.dropped.items() if count)
        lines.append(
            f"{quantity(lineage.ranks, 'rank')} trained on {quantity(lineage.rows, 'row')} of {lineage.source}"
            + (f"; left out: {dropped}" if dropped else "")
        )
    if (score := version.metrics.get("test_macro_f1")) is not None:
        rows, low, high = (version.metrics.get(f"test_{name}") for name in ("rows", "macro_f1_low", "macro_f1_high"))
        interval = "" if low is None or high is None else f" (95 % interval {low:.1%} to {high:.1%})"
        lines.append(f"macro-F1 {score:.2%}{interval} on {rows or 0:,.0f} test rows, which no training sees")
    lines.append(f"gate: {'promoted' if of.verdict.promoted else 'not promoted'}: {of.verdict.reason}")
    return lines


def swaps_table(swaps: Sequence[tuple[str, Swap]]) -> Table:
    """A row for each swap, after what it was for. Times are from the alias's record on."""
    table = Table("to version", title="Swaps under the running stream", title_justify="left")
    for title in ("first answer", "all partitions", "worst beside", "of requests"):
        table.add_column(title, justify="right")
    for what, swap in swaps:
        times = (milliseconds(swap.first), milliseconds(swap.everywhere), milliseconds(swap.worst))
        table.add_row(what, *times, f"{swap.beside:,}")
    return table


def whole_stream(end: Snapshot) -> list[str]:
    """What to hold the swaps against."""
    return [
        f"the whole stream: {end.answered:,} answers, median wait {milliseconds(end.p50)}, p99 {milliseconds(end.p99)}",
        FIGURES,
    ]


def erasure(erased: int, left_out: int, quoted: int, still: int) -> str:
    """What became of ``erased`` labels; ``quoted`` and ``still`` are the canaries of both versions that are of them."""
    return (
        f"erased: {left_out:,} of {erased:,} labels left out of version 2; version 1 quotes {quoted:,} of them to test "
        f"itself, version 2 {still:,}"
    )


def order_of_versions(*, kept: bool) -> str:
    """Whether answers came of the champions, one after another."""
    return f"every partition was answered by versions 1, 2, 1, 2 in this order: {'yes' if kept else 'NO'}"
