"""The audit of a run: what was acknowledged against what a reader of the answers accepts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from headrace.client import Client, Published
from headrace_load.measure.columns import ANSWERED, SENT, STATUSES, Answers, Columns, join, keys

QUIET_S = 5.0


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one run. ``repeated`` were seen twice by the reader, ``dropped`` it dropped before anybody saw them.

    ``answered`` are requests of this run; answers to others are no part of the audit. ``seconds`` lie between the
    append of the first answer and of the last. ``dropped``, ``holes``, ``wrong`` and ``out_of_order`` are of the answer
    log: in answers that are known by id nobody can see them.
    """

    published: int
    answered: int
    lost: int
    repeated: int
    dropped: int
    holes: int
    wrong: int
    by_status: dict[str, int]
    seconds: float
    out_of_order: int = 0

    @property
    def kept(self) -> bool:
        return not (self.lost or self.repeated or self.holes or self.wrong or self.out_of_order)

    def line(self) -> str:
        """The audit in one line."""
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(self.by_status.items()))
        return (
            f"published {self.published:,}, answered {self.answered:,} ({statuses}), lost {self.lost:,}, "
            f"repeated {self.repeated:,}, raw repeats dropped {self.dropped:,}, holes {self.holes:,}, "
            f"answers to other texts {self.wrong:,}, out of order {self.out_of_order:,}"
        )


def audited(sent: Columns, answered: Columns, answers: Answers, *, records: int) -> Audit:
    """Audit rows of columns.SENT against rows of columns.ANSWERED, of which the log held ``records``.

    Every acknowledged request must be answered; one that is rubbish only where the answers are headrace's, which
    answers `failed`.
    """
    acknowledged = sent["acked_us"] >= 0
    first = join(sent, answered, answers)
    has = first >= 0
    expected = acknowledged if answers == "log" else acknowledged & sent["good"]
    known = keys(sent, answers)
    of_ours = np.isin(keys(answered, answers), known[known >= 0])
    by_log = answers == "log"
    times = answered["appended_us"][first[has]]
    counts = np.bincount(answered["status"][first[has]], minlength=len(STATUSES))
    return Audit(
        published=int(acknowledged.sum()),
        answered=int(has.sum()),
        lost=int((expected & ~has).sum()),
        repeated=int(of_ours.sum()) - int(has.sum()),
        dropped=records - len(answered) if by_log else 0,
        holes=int(answered["hole"].sum()),
        wrong=int((sent["crc"][has] != answered["crc"][first[has]]).sum()) if by_log else 0,
        by_status={status: int(count) for status, count in zip(STATUSES, counts, strict=True) if count},
        seconds=float(times.max() - times.min()) / 1e6 if len(times) else 0.0,
        out_of_order=_out_of_order(answered) if by_log else 0,
    )


def _out_of_order(answered: Columns) -> int:
    """Answers that stand behind one to a later request of their partition."""
    count = 0
    for partition in np.unique(answered["partition"]):
        rows = answered[answered["partition"] == partition]
        offsets = rows["offset"][np.argsort(rows["position"], kind="stable")]
        count += int((offsets < np.maximum.accumulate(offsets)).sum())
    return count


async def audit(client: Client, published: Sequence[Published], *, quiet_s: float = QUIET_S) -> Audit:
    """Read the results topic from its beginning, as a user does, and compare it with what was acknowledged.

    It ends when no answer comes for ``quiet_s`` seconds.
    """
    sent = np.zeros(len(published), SENT)
    sent["good"] = True
    for name in ("partition", "offset", "crc"):
        sent[name] = [getattr(place, name) for place in published]
    rows: list[tuple[int, ...]] = []
    async with client.reader("earliest") as reader:
        begins = sum(place.position for place in reader.positions.values())
        while answers := await reader.read(timeout_s=quiet_s):
            rows += [
                (
                    -1,
                    answer.partition,
                    answer.result.offset,
                    answer.position,
                    answer.result.crc,
                    STATUSES.index(answer.result.status),
                    answer.hole is not None,
                    answer.timestamp_ms * 1000,
                    -1,
                )
                for answer in answers
            ]
        records = sum(place.position for place in reader.positions.values()) - begins
    return audited(sent, np.array(rows, ANSWERED), "log", records=records)
