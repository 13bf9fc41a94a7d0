"""The job of a training, its checkpoints and its outcome: the files by which the trainer and its ranks work together.

By them a training goes on after a rank, a machine or the trainer has died.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from headrace.files.table import Reading
from headrace.learning.compress.curve import Budget, Curve
from headrace.learning.data.features import Lengths
from headrace.learning.distributed.collectives import Exchange, decode, encode
from headrace.learning.evaluate import Report
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model import store
from headrace.model.places import Location, Places
from headrace_schemas.records import Lineage, ModelVersion, OffsetRange


class FileSource(msgspec.Struct, frozen=True, kw_only=True, tag="files"):
    """Labelled texts in files that every rank can read, as :mod:`headrace.files.table` does. ``taught``: a file of
    machine labels (:func:`headrace.learning.data.taught.read_taught`); with it ``data`` may be None.
    """

    data: str | None
    taught: str | None = None
    valid: str | None = None
    test: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    reading: Reading = Reading()


class MachineSource(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of teachers on a ``topic`` of theirs, up to the frozen ends of ``ranges``.

    ``teachers``: the versions that are learnt from, each with what its rows count beside those that people labelled.
    """

    topic: str
    ranges: tuple[OffsetRange, ...]
    teachers: dict[str, float]


class TopicSource(msgspec.Struct, frozen=True, kw_only=True, tag="topic"):
    """Labelled texts on a topic, up to the frozen ends of ``ranges``. How to reach Kafka is in the rank's settings."""

    topic: str
    ranges: tuple[OffsetRange, ...]
    max_text_bytes: int
    labels: tuple[str, ...] = ()
    """The labels that are allowed; empty allows every label."""
    machine: MachineSource | None = None
    """Where teachers' labels are that train too; None where there are none to learn from."""
    rules: dict[str, str | None] = {}
    """What labels are learnt as, as :mod:`headrace.core.label_rules` has it."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One training. ``checkpoints`` and ``out`` are URIs of folders; ``champion`` and ``baseline`` are
    versions whose answers to the test rows are wanted beside the new one's (no baseline where it is the champion);
    ``created_at_ms`` goes into the version's name.
    """

    id: str
    source: FileSource | TopicSource
    recipe: Recipe
    checkpoints: str
    out: str
    budget: Budget | None = None
    created_at_ms: int | None = None
    parent: str | None = None
    champion: ModelVersion | None = None
    baseline: ModelVersion | None = None
    split: str | None = None
    """The id of the split, whose secret ranks take from their own settings. None: made before there were keys."""
    holdout: str | None = None
    """Where rows are that decide instead of the test rows; the same as gate.holdout of every rank's own settings."""
    holdout_digest: str | None = None
    """What the digest of their texts has to be, where it matters: to make a version again."""
    follow_lengths: bool = False
    """Whether the recipe's max_tokens is raised to the lengths of the texts."""
    max_labels: int | None = None
    """Labels that there may be at most."""
    accept: float | None = None
    """Share of in-scope texts that the abstention threshold lets through; None gives no threshold."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A ``version`` beside the new one: its ``answers`` to the test rows of the outcome, in their order.

    ``fair`` says which of the rows it was not trained on, None where nobody here can tell; ``split`` is the id of its
    split. ``known`` says which of them its own snapshot held, None where nobody can tell. ``latency_us`` as in Outcome.
    ``holdout_answers`` are those to the rows of the holdout; ``spared`` says whether its training left out the same.
    """

    version: str
    split: str | None
    answers: tuple[str, ...]
    fair: tuple[bool, ...] | None
    known: tuple[bool, ...] | None
    latency_us: float
    holdout_answers: tuple[str, ...] = ()
    spared: bool = False


class Judged(msgspec.Struct, frozen=True):
    """The labels of the rows of the holdout, ``truth``, and what the new version and its fp32 original answer."""

    truth: tuple[str, ...]
    answers: tuple[str, ...]
    float_answers: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What rank 0 writes when a training is done, as JSON at :func:`outcome_uri`.

    ``truth``, ``answers`` and ``float_answers`` are the labels of the test rows of all ranks, in one order: the true
    ones, the new version's, those of its fp32 original. ``champion`` and ``baseline`` are what the job asked for.
    ``curve``: what compression tried, None without a budget.
    ``latency_us``: microseconds a text on one thread of the cpu backend, of this version; ``epochs``, ``seconds``.
    """

    uri: str
    version: str
    sha256: str
    size: int
    float_size: int
    lineage: Lineage
    report: Report
    float_report: Report
    truth: tuple[str, ...]
    answers: tuple[str, ...]
    float_answers: tuple[str, ...]
    latency_us: float
    epochs: int
    seconds: float
    champion: Compared | None = None
    baseline: Compared | None = None
    holdout: Judged | None = None
    curve: Curve | None = None
    lengths: Lengths | None = None
    """How many words of a text are read and how many texts are longer."""
    longest_us: float | None = None
    """Microseconds that a text of so many words takes."""


def outcome_uri(job: Job) -> str:
    """Where the outcome of ``job`` is written."""
    return f"{job.checkpoints.rstrip('/')}/outcome.json"


def read_outcome(job: Job, places: Places) -> Outcome | None:
    """What came of ``job``, None when its ranks are not done. Blocks; raises StoreError when the store can't be
    reached or is none of ``places``, and msgspec.DecodeError for what is no outcome.
    """
    data = store.read_if_there(places.locate(outcome_uri(job)))
    return None if data is None else msgspec.json.decode(data, type=Outcome)


class Checkpoints(Protocol):
    """Named states of one training. All ranks call these together, with equal states.

    A state is of what :func:`~headrace.learning.distributed.collectives.encode` takes; tuples in it come back as lists.
    """

    def save(self, name: str, state: dict[str, Any]) -> None: ...
    def load(self, name: str) -> dict[str, Any] | None:
        """The state last saved as ``name``, or None: the same on every rank."""


class NoCheckpoints:
    """For a training that starts again when it is interrupted."""

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep nothing."""

    def load(self, name: str) -> dict[str, Any] | None:  # noqa: ARG002 - as Checkpoints has it
        return None


class StoredCheckpoints:
    """Files in the folder ``uri``, which lies below one of ``places``.

    Rank 0 writes and reads, so only its machine needs to reach it.
    """

    def __init__(self, uri: str, exchange: Exchange, places: Places) -> None:
        self._folder = uri.rstrip("/")
        self._exchange = exchange
        self._places = places

    def save(self, name: str, state: dict[str, Any]) -> None:
        if self._exchange.rank == 0:
            # Whoever dies while writing leaves the checkpoint before.
            store.write(self._at(name), encode(state), name)

    def load(self, name: str) -> dict[str, Any] | None:
        own = store.read_if_there(self._at(name)) if self._exchange.rank == 0 else None
        data = self._exchange.gather(own or b"", bytes)[0]
        return decode(data, dict[str, Any]) if data else None

    def _at(self, name: str) -> Location:
        return self._places.locate(f"{self._folder}/{name}.msgpack")
