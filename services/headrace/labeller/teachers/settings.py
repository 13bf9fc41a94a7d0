"""The settings of teachers; times in seconds, prices for a million tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from headrace.core.fields import LARGEST, Name, Place, Secret, Section
from headrace.labeller.teachers.privacy import Redaction

Price = Annotated[float, Meta(ge=0, le=1e6)]


class TeacherSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the teacher that is named elsewhere works.

    Raises ValueError for a redaction that is none.
    """

    labels: Place | None = None
    """The file of the labels (labels.toml): names, and descriptions and examples for a language model."""
    model: Name | None = None
    """The model that an endpoint is asked for."""
    api_key: Secret | None = None
    """The key of an endpoint."""
    may_leave: tuple[str, ...] = ()
    """What an endpoint may be sent: a column of a file, or TOPIC:text; nothing else leaves this machine."""
    redact: tuple[str, ...] = ("email", "card", "phone")
    """What is taken out of a text before an endpoint sees it: any of email, card, phone."""
    redact_patterns: tuple[str, ...] = ()
    """Regular expressions; what they match is taken out too."""
    texts_a_call: Annotated[int, Meta(ge=1, le=64)] = 1
    """Texts that an endpoint is asked about at once. More are cheaper, but a text that gives orders to the model may
    then change its neighbours' labels."""
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    """Calls to an endpoint under way at once."""
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    """Longest wait for the answer to a call, or for a program's next line."""
    attempts: Annotated[int, Meta(ge=1, le=20)] = 5
    """How often a call is tried while the endpoint is busy, broken or away."""
    longest_wait: Annotated[float, Meta(ge=0, le=3600)] = 120.0
    """Longest wait that an endpoint may ask for (Retry-After); with more the text is left."""
    log_probabilities: bool = True
    """Ask an endpoint for its tokens' probabilities, from which scores come."""
    confidence: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    """The score of the label where a teacher gives no scores."""
    price_input: Price = 0.0
    """What a million tokens sent to an endpoint cost, in the money of the budgets."""
    price_output: Price = 0.0
    """What a million tokens of its answers cost."""
    max_text_bytes: Annotated[int, Meta(ge=16, le=1 << 20)] = 8192
    """Bytes of a text that an endpoint or a program is given; the rest is cut off."""
    max_tokens: Annotated[int, Meta(ge=2, le=8192)] = 128
    """Tokens of a text that an encoder reads."""
    tune: Literal["auto", "never", "always"] = "auto"
    """Whether an encoder's own weights are trained on too; auto decides on validation rows, and takes minutes."""
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Threads of an encoder; by default one a core."""
    seed: Annotated[int, Meta(ge=0, le=LARGEST)] = 0
    """The same rows and seed give the same encoder teacher on one machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.redaction()

    def redaction(self) -> Redaction:
        """What is taken out of a text before it leaves."""
        try:
            return Redaction(self.redact, self.redact_patterns)
        except ValueError as error:
            raise ValueError(f"redact: {error}") from None

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.price_input + output_tokens * self.price_output) / 1e6
