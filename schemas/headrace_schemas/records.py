"""The records on the wire: frozen structs, unknown fields ignored, new fields optional.

A field is never renamed, removed or given another meaning: the golden files in ``examples/`` must decode for ever.
Times are milliseconds since the Unix epoch, as Kafka's record timestamps are.
"""

from __future__ import annotations

import enum

import msgspec


class Status(enum.StrEnum):
    """How a request ended; every request ends in exactly one of these."""

    OK = "ok"
    EXPIRED = "expired"
    FAILED = "failed"


class ClassifyRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A text to label. ``id`` is the caller's own and is copied to the answer."""

    text: str
    id: str | None = None


class Score(msgspec.Struct, frozen=True, gc=False):
    """A label with its share of the softmax, in [0, 1]."""

    label: str
    score: float


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """What code points ``begin`` to ``end`` (not included) of a text add to two logits.

    ``part`` is added to the logit of the label, ``against`` to that of the runner-up.
    """

    begin: int
    end: int
    part: float
    against: float = 0.0


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """Code points ``begin`` to ``end`` (not included), in which so many ``filters`` found their maximum over time.

    ``part`` and ``against`` are those of a :class:`Part`.
    """

    begin: int
    end: int
    filters: int
    part: float
    against: float = 0.0


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a text has its label. ``logit`` is the sum of ``bias``, the parts of ``words`` and ``pairs``, and ``rest``.

    ``against`` is the runner-up, and the fields that begin so are its own; a version of one label has none. A word's
    part is what the linear map and the convolution give for it, a pair's what the linear map gives for two neighbours.
    ``windows`` show the convolution by what its maximum over time chose; the words' parts contain them already. Of each
    kind the 256 are there that tell the two labels apart most, in the order of the text; ``rest`` is the sum of the
    other words and pairs. Figures are rounded to six decimals. Code points are those of the text in normal form C. An
    answer that abstains is explained by the label that it would have.
    """

    label: str
    logit: float
    bias: float
    words: tuple[Part, ...] = ()
    pairs: tuple[Part, ...] = ()
    windows: tuple[Window, ...] = ()
    rest: float = 0.0
    against: str | None = None
    against_logit: float = 0.0
    against_bias: float = 0.0
    against_rest: float = 0.0


class Loss(msgspec.Struct, frozen=True):
    """Offsets ``first`` to ``last``, both included, of a requests partition that can't be answered any more."""

    first: int
    last: int
    reason: str


class ClassifyResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer to the request at ``offset`` of the requests partition with this record's partition number.

    ``after`` is the offset of the request before it in that partition as the requests log has it (-1: none), so a
    reader sees a hole. ``crc`` is the CRC-32 of the request's value, so a reader sees that a log was made anew.
    """

    offset: int
    after: int
    crc: int
    status: Status
    version: str
    label: str | None = None
    score: float | None = None
    ranking: tuple[Score, ...] = ()
    id: str | None = None
    reason: str | None = None
    lost: Loss | None = None
    explanation: Explanation | None = None
    """Of a request with the header ``headrace-explain``, where workers explain."""


class LabelledText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text with its true label. The record's key is the text's id; a later record with that key replaces it."""

    text: str
    label: str
    source: str | None = None
    """How the text was chosen, or where the label comes from."""
    labelled_at_ms: int | None = None
    by: str | None = None
    """Who gave the label."""
    guessed: str | None = None
    """The label that ``version`` held for the likeliest when the text was chosen, even where it abstained."""
    version: str | None = None
    """The version whose answer the text was chosen by."""


class MachineLabel(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="machine-label", tag_field="kind"
):
    """What a teacher says of a text. Such labels train versions and never decide on one.

    ``teacher`` names the teacher's version: its kind, model, head and prompt. ``scores`` are the teacher's, the highest
    first; ``label`` is the first of them. A text that the teacher failed on has a ``reason`` and no label, so that it
    is not asked again. ``cost`` is in the money of the labeller's budget.
    """

    text: str
    teacher: str
    labelled_at_ms: int
    label: str | None = None
    scores: tuple[Score, ...] = ()
    prompt: str | None = None
    """Digest of the prompt, of a teacher that has one."""
    cost: float = 0.0
    reason: str | None = None
    source: str | None = None
    """Where the text came from, as TOPIC/PARTITION@OFFSET or a file's name."""


class BarredText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="barred-text", tag_field="kind"):
    """A text that was erased: no teacher is asked about it again, and no teacher's label of it is learnt.

    ``text_key`` is that of the text, or the first 32 hexadecimal digits of the key of its words, which texts share that
    differ in case, spaces and separators.
    """

    text_key: str
    barred_at_ms: int


MachineLabelsRecord = MachineLabel | BarredText
"""What lies on classify.machine-labels."""


class Spending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="spending", tag_field="kind"):
    """What one process of a labeller has spent on one day, in all so far.

    ``reserved`` is raised and acknowledged before a call, ``settled`` after it. Of each process the larger one counts,
    so what was never settled counts as spent. ``day`` is YYYY-MM-DD in UTC. ``asking`` are the text keys of the call of
    the ``teacher``'s version that is under way: the last record of a process that died tells over which texts.
    """

    labeller: str
    day: str
    process: str
    reserved_texts: int
    reserved_money: float
    settled_texts: int
    settled_money: float
    written_at_ms: int
    teacher: str | None = None
    asking: tuple[str, ...] = ()


class LabellerState(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="labeller-state", tag_field="kind"
):
    """Whether a labeller asks its teacher, and the agreement on gold texts: plain ones, and ones with planted orders.

    A ``stopped`` labeller stays so until an operator lets it go on; ``reason`` says why it stopped.
    """

    labeller: str
    teacher: str
    stopped: bool
    written_at_ms: int
    reason: str | None = None
    gold: int = 0
    gold_agreed: int = 0
    planted: int = 0
    planted_agreed: int = 0


TeachingRecord = Spending | LabellerState
"""What lies on classify.teaching."""


class Review(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The label that a person or a teacher gave to a request which was answered without one.

    ``results``, ``partition`` and ``offset`` are those of the answer; ``id`` is the request's. ``origin`` is ``person``
    or ``teacher``, ``by`` who: a name, or the teacher's version. Of several reviews the last by a person holds; where
    there is none, the last. A record with the same key and no value takes all before it back.
    """

    results: str
    partition: int
    offset: int
    label: str
    origin: str
    reviewed_at_ms: int
    id: str | None = None
    score: float | None = None
    by: str | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="api-key", tag_field="kind"):
    """Who may come to the gateway, and as what. The token itself is nowhere: ``hash`` is its SHA-256 in hexadecimal.

    ``roles`` are ``client``, ``labeller`` and ``operator``. What is asked with the key belongs to its ``tenant``, and
    nobody else's key sees it; keys without a tenant see what such keys asked. ``texts_per_second`` bounds what each
    gateway takes, where it is set; ``burst`` is how many texts may come at once.
    """

    id: str
    hash: str
    roles: tuple[str, ...]
    created_at_ms: int
    tenant: str | None = None
    texts_per_second: float | None = None
    burst: float | None = None
    note: str | None = None
    revoked_at_ms: int | None = None
    made_by: str | None = None
    """Who made it, where that is known: somebody in the console."""
    revoked_by: str | None = None
    """Who revoked it, where that is known."""


KeysRecord = ApiKey
"""What lies on classify.keys."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="usage", tag_field="kind"):
    """What one API key asked of one process of the gateway on one day, in all so far. ``day`` is YYYY-MM-DD in UTC.

    ``text_bytes`` are those of the texts in UTF-8. ``api_key`` is the key's id.
    """

    api_key: str
    day: str
    process: str
    calls: int
    texts: int
    text_bytes: int
    written_at_ms: int
    tenant: str | None = None


UsageRecord = Usage
"""What lies on classify.usage."""


class Span(msgspec.Struct, frozen=True, omit_defaults=True):
    """Offsets of one partition of the requests, from ``first`` to ``last``; without ``last`` from ``first`` on."""

    partition: int
    first: int
    last: int | None = None


class IdempotentCall(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="idempotent-call", tag_field="kind"
):
    """A call with an Idempotency-Key. It is written before the call's requests are published, and again behind them.

    ``key`` is the SHA-256 of the tenant and the key, ``body`` that of what was asked, both in hexadecimal. The
    requests have the header ``headrace-call``, which is ``key`` and the number of the text, and lie within ``spans``.
    ``state`` is `claimed` (this ``attempt`` may publish), `published` (all ``texts`` lie within ``spans``) or
    `released` (this attempt publishes nothing more). ``after`` is the attempt whose place this one takes.
    """

    key: str
    attempt: str
    body: str
    state: str
    texts: int
    spans: tuple[Span, ...] = ()
    after: str | None = None
    tenant: str | None = None


class TextLease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="text-lease", tag_field="kind"):
    """Somebody looks at a text in the console, or has ``labelled`` it; nobody else is asked about it meanwhile.

    ``text`` is a SHA-256 in hexadecimal that texts share which training can't tell apart, ``holder`` a session. The
    lease lasts for ``lease_ms`` from the record's time stamp on; 0 gives it up. It holds where no other one does then.
    """

    text: str
    holder: str
    lease_ms: int
    labelled: bool = False


IdempotencyRecord = IdempotentCall | TextLease
"""What lies on classify.idempotency."""


class OffsetRange(msgspec.Struct, frozen=True):
    """Offsets ``first`` to ``end`` (not included) of one partition."""

    partition: int
    first: int
    end: int


class Lineage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version was trained on: where the labels came from, and a digest of them."""

    source: str
    digest: str
    rows: int
    offsets: tuple[OffsetRange, ...] = ()
    dropped: dict[str, int] = {}
    """How many records were left out, by reason: erased, replaced, empty, duplicate, conflicting and so on."""
    recipe: str | None = None
    """How it was trained, as JSON text."""
    ranks: int = 1
    split: str | None = None
    """Names what decided which texts were trained on and which were test rows: the digest of a key, and the hashing.
    Two versions with one name for it have the same texts among their test rows, but for labels ``lent`` or
    ``borrowed``."""
    holdout: str | None = None
    """Digest of the texts that were left out of the training because the gate judges by them."""
    lent: tuple[str, ...] = ()
    """Labels with so few rows that some test rows of the split were trained on."""
    borrowed: tuple[str, ...] = ()
    """Labels with so few rows that some training rows of the split were test rows; a later version may learn them."""
    unlearnt: tuple[str, ...] = ()
    """Labels of the data that had no row to learn from, so that the version never answers them."""
    machine_rows: int = 0
    """How many of the rows that it learnt from have a teacher's label; ``rows`` does not count them."""
    teachers: tuple[str, ...] = ()
    """The teachers' versions whose labels it learnt from."""
    teacher_weights: dict[str, float] = {}
    """What a row of each teacher counts beside a person's row by trainer.sources, where that is not 1."""
    machine_offsets: tuple[OffsetRange, ...] = ()
    """The snapshot of classify.machine-labels."""
    machine_weight: float = 0.0
    """What a machine row counted beside a person's row, as chosen on the validation rows."""
    unproven: bool = False
    """No person labelled any row, so its test rows say only how far it agrees with its teachers."""
    label_rules: dict[str, str | None] = {}
    """What labels were learnt as by then: by label what it became, null for one that was no longer given."""


class Profile(msgspec.Struct, frozen=True):
    """How a version answered its test rows, which drift is measured against; all are shares in [0, 1].

    ``labels[i]`` is the share of answers with the version's label i; ``confidence[i]`` that of answers whose score is
    in tenth i of [0, 1].
    """

    labels: tuple[float, ...]
    confidence: tuple[float, ...]


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="version", tag_field="kind"):
    """An immutable version: an artifact with its proof (size, SHA-256) and its history.

    ``signature`` is ed25519 in base64, over the JSON array, in UTF-8 and without spaces, of "headrace/version/1", name,
    version, sha256, size and labels. ``signed_by`` names the key: 16 hexadecimal digits of its SHA-256.
    ``path_signature`` is the like by the same key, over "headrace/version/2", these and ``path``: where the artifact
    lies below its store, the end of ``uri``.
    """

    name: str
    version: str
    uri: str
    sha256: str
    size: int
    labels: tuple[str, ...]
    created_at_ms: int
    metrics: dict[str, float] = {}
    lineage: Lineage | None = None
    parent: str | None = None
    compression: dict[str, float] = {}
    libraries: dict[str, str] = {}
    weights_sha256: str | None = None
    """Of the arrays alone: two trainings that came to the same weights have it in common, whenever they ran."""
    profile: Profile | None = None
    threshold: float | None = None
    """An answer with a lower score is ``ok`` without a label."""
    untested: tuple[str, ...] = ()
    """Labels that it learnt and that no test row has, so that the metrics say nothing of them."""
    unproven: bool = False
    """No human label stood among its test rows, so only an operator promotes it."""
    signature: str | None = None
    signed_by: str | None = None
    path: str | None = None
    path_signature: str | None = None


class ModelAlias(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="alias", tag_field="kind"):
    """``alias`` of model ``name`` points at ``version`` from this record on.

    ``previous`` is where it pointed before, so that it can be rolled back; a ``pinned`` alias is moved by hand only.
    """

    name: str
    alias: str
    version: str
    moved_at_ms: int
    reason: str | None = None
    previous: str | None = None
    pinned: bool = False
    by: str | None = None
    """Who moved or pinned it, where that is known: not the trainer, but a person."""


class Check(msgspec.Struct, frozen=True):
    """One condition of the gate: what was measured, what it had to keep to, and in words how it went."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="verdict", tag_field="kind"):
    """What the gate decided about a version; ``champion`` is the version that it was compared with.

    ``baseline`` is the version that later ones are compared with too: this version, where it is better for certain.
    """

    name: str
    version: str
    promoted: bool
    reason: str
    decided_at_ms: int
    checks: tuple[Check, ...] = ()
    champion: str | None = None
    baseline: str | None = None


class TrainingState(enum.StrEnum):
    """How far a training has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Training(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="training", tag_field="kind"):
    """The last training of model ``name``: a frozen range of every labels partition, and why it began.

    A training that is found ``running`` without its trainer goes on from its last checkpoint, under the same ``id``.
    """

    name: str
    id: str
    state: TrainingState
    reason: str
    begun_at_ms: int
    offsets: tuple[OffsetRange, ...]
    machine_offsets: tuple[OffsetRange, ...] = ()
    """The frozen ranges of classify.machine-labels."""
    ended_at_ms: int | None = None
    version: str | None = None
    error: str | None = None


class TrainingOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="order", tag_field="kind"):
    """Somebody asks for a training of model ``name`` now, whatever the rules say."""

    name: str
    ordered_at_ms: int
    reason: str
    by: str | None = None
    """Who asks, where that is known."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="certificate", tag_field="kind"):
    """Above ``threshold`` a version disagrees with human labels on at most the share ``disagree`` of its answers.

    ``bound`` is the one-sided exact bound (Clopper-Pearson) at ``confidence`` for ``errors`` among ``accepted`` of
    ``rows`` human labels that the version never saw. ``coverage`` is accepted / rows. ``signature`` is ed25519 in
    base64, over the JSON array, in UTF-8 and without spaces, of "headrace/certificate/1", name, version, threshold,
    disagree, confidence, rows, accepted, errors and certified_at_ms; ``signed_by`` as in a version.
    """

    name: str
    version: str
    threshold: float
    disagree: float
    confidence: float
    rows: int
    accepted: int
    errors: int
    bound: float
    coverage: float
    certified_at_ms: int
    teacher_rows: int = 0
    teacher_errors: int = 0
    """Disagreement with a teacher above the threshold: another figure, that certifies nothing."""
    signature: str | None = None
    signed_by: str | None = None
    by: str | None = None
    """Who certified it, where that is known."""


class ThresholdRaise(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="threshold-raise", tag_field="kind"
):
    """From this record on a version answers below ``threshold`` without a label, whatever its certificate says.

    ``rule`` names what raised it, ``figures`` are the measures that the rule went by.
    """

    name: str
    version: str
    threshold: float
    rule: str
    reason: str
    raised_at_ms: int
    figures: dict[str, float] = {}


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="label-rule", tag_field="kind"):
    """From now on ``label`` is learnt as ``becomes``, or not at all where that is None: of labels past and to come."""

    name: str
    label: str
    decided_at_ms: int
    becomes: str | None = None
    reason: str | None = None
    by: str | None = None
    """Who made it, where that is known."""


class ResultsClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="claim", tag_field="kind"):
    """A results topic belongs to one (requests topic, group): two writers would break its order.

    ``starts[p]`` is the offset at which the group began requests partition p; a partition added later began at 0.
    ``max_batch`` is how many requests the group's workers answer in one batch at most; None in a claim of a version
    that did not write it down, whose workers may have had any. ``claimer`` names the process that made the claim, so
    that no two processes write the same key; None in a claim of a version that did not do so.
    """

    results: str
    requests: str
    group: str
    claimed_at_ms: int
    starts: tuple[int, ...] = ()
    max_batch: int | None = None
    claimer: str | None = None


class MaxBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="max-batch", tag_field="kind"):
    """From this record on, workers that write ``results`` may answer ``max_batch`` requests in one batch.

    Of the claim and all these records the largest number holds: it is raised, and never lowered.
    """

    results: str
    max_batch: int
    raised_at_ms: int


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="attempt", tag_field="kind"):
    """A worker is about to answer a requests partition from ``offset`` on; a clean release is a tombstone.

    If it is found when the partition is taken up again, its ``process`` died there. ``alone`` says that the
    requests up to ``through`` are tried one by one, ``deaths`` how many processes died at exactly ``offset``.
    """

    results: str
    partition: int
    offset: int
    through: int
    process: str
    alone: bool = False
    deaths: int = 0


ModelsRecord = (
    ModelVersion
    | ModelAlias
    | Verdict
    | Training
    | TrainingOrder
    | Certificate
    | ThresholdRaise
    | LabelRule
    | ResultsClaim
    | Attempt
)
"""What may lie on classify.models. Claims and attempts there are those of versions before classify.workers."""

WorkersRecord = ResultsClaim | MaxBatch | Attempt
"""What lies on classify.workers."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request that can't be answered ``ok``: its original bytes, key and headers, and why.

    On the topic the value, key and headers are the request's own and the rest travels in headers
    (see :mod:`headrace_schemas.dead_letters`), so that a repaired record can be replayed as it is.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    stage: str
    error: str
    message: str
    attempt: int = 1
    version: str | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
