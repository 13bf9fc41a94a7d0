"""The settings of the labeller; times in seconds, money in the unit of the teacher's prices."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.core.fields import LARGEST, LONGEST_S, Line, Name, Section
from headrace.core.spending import Budget

Positive = Annotated[int, Meta(gt=0, le=LARGEST)]
Texts = Annotated[int, Meta(ge=0, le=LARGEST)]
Money = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]


class LabellerSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the labeller asks its teacher about, and for how much. Labellers of one ``name`` share a budget."""

    name: Name = "default"
    """Names the budget and the state on the teaching topic."""
    group: Name = "headrace-labeller"
    """The group that commits how far answers were looked at; with -election behind it, the one that elects."""
    teacher: Line = "encoder"
    """The teacher: encoder, encoder:PATH_OR_NAME, endpoint:URL or program:COMMAND."""
    random: Share = 0.01
    """The fraction of all requests that is labelled whatever was answered; only these are a sample of what comes in."""
    least_margin: Share = 0.3
    """Requests are labelled whose best two labels lie nearer to each other than this."""
    abstained: bool = True
    """Whether requests are labelled, and reviewed, that were answered without a label."""
    waiting: Annotated[int, Meta(gt=0, le=1_000_000)] = 1000
    """Requests that may wait for the teacher; with more, those of the largest margin are left."""
    batch: Annotated[int, Meta(gt=0, le=10_000)] = 64
    """Texts that the teacher is asked about at once, at most; what a killed labeller may have paid for in vain."""
    day_texts: Texts | None = 10_000
    """Texts that the teacher may be asked about on a day (UTC)."""
    month_texts: Texts | None = None
    """Texts that the teacher may be asked about in a month."""
    day_money: Money | None = None
    """Money that the teacher may cost on a day."""
    month_money: Money | None = None
    """Money that the teacher may cost in a month."""
    tries: Annotated[int, Meta(gt=0, le=100)] = 3
    """How often a batch is tried where the teacher fails as a whole; then its texts are left."""
    longest_wait: Annotated[float, Meta(gt=0, le=LONGEST_S)] = 300.0
    """Longest pause after the teacher failed; pauses double up to it."""
    longest_call: Annotated[float, Meta(gt=0, le=LONGEST_S)] = 1800.0
    """Longest wait for the teacher's answer to a batch; what was reserved for it then counts as spent."""
    gold: Share = 0.05
    """Gold texts, which people labelled, as a fraction of the texts asked about; every second has an order planted."""
    gold_least: Annotated[int, Meta(ge=5, le=10_000)] = 40
    """Gold texts of one kind that there have to be before the agreement stops a labeller."""
    gold_agreement: Share = 0.6
    """With less agreement on the last gold texts the labeller stops."""
    planted_agreement: Share = 0.6
    """With less agreement on the last gold texts with a planted order the labeller stops."""

    def budget(self) -> Budget:
        """The bounds of what is spent."""
        return Budget(
            day_texts=self.day_texts,
            day_money=self.day_money,
            month_texts=self.month_texts,
            month_money=self.month_money,
        )
