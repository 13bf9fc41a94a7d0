"""The audit of a run: what was acknowledged against what a reader of the answer log accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from headrace.client import Client, Published

QUIET_S = 5.0


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one run. ``repeated`` were seen twice by the reader, ``dropped`` it dropped before anybody saw them.

    ``seconds`` lie between the append of the first answer and of the last.
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

    @property
    def kept(self) -> bool:
        return not (self.lost or self.repeated or self.holes or self.wrong)

    def line(self) -> str:
        """The audit in one line."""
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(self.by_status.items()))
        return (
            f"published {self.published:,}, answered {self.answered:,} ({statuses}), lost {self.lost:,}, "
            f"repeated {self.repeated:,}, raw repeats dropped {self.dropped:,}, holes {self.holes:,}, "
            f"answers to other texts {self.wrong:,}"
        )


async def audit(client: Client, published: Sequence[Published], *, quiet_s: float = QUIET_S) -> Audit:
    """Read the results topic from its beginning, as a user does, and compare it with what was acknowledged.

    It ends when no answer comes for ``quiet_s`` seconds.
    """
    expected = {(request.partition, request.offset): request.crc for request in published}
    seen: Counter[tuple[int, int]] = Counter()
    statuses: Counter[str] = Counter()
    times: list[int] = []
    holes = wrong = 0
    async with client.reader("beginning") as reader:
        begins = sum(reader.positions.values())
        while answers := await reader.read(timeout_s=quiet_s):
            for answer in answers:
                place = (answer.partition, answer.result.offset)
                seen[place] += 1
                statuses[answer.result.status] += 1
                holes += answer.hole is not None
                wrong += expected.get(place, answer.result.crc) != answer.result.crc
            times += (answer.timestamp_ms for answer in answers)
        records = sum(reader.positions.values()) - begins
    return Audit(
        published=len(expected),
        answered=len(seen),
        lost=len(expected.keys() - seen.keys()),
        repeated=sum(count - 1 for count in seen.values()),
        dropped=records - seen.total(),
        holes=holes,
        wrong=wrong,
        by_status=dict(statuses),
        seconds=(max(times) - min(times)) / 1000 if times else 0.0,
    )
