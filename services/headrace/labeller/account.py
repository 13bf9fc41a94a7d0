"""What one term of a labeller reserves and settles, on classify.teaching.

A reservation is acknowledged before a call; one that is never settled counts as spent. Each term writes totals of its
own and never overwrites those of another. A reservation names the texts of its call by their keys, and settling it
removes the names. So the last record of a term that died in a call names the texts of that call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.spending import Amount, day_of, exhausted
from headrace.kafka.retry import patiently
from headrace.labeller.settings import LabellerSettings
from headrace.registry.compacted_topics import TeachingLog, TeachingWriter
from headrace_schemas.records import Spending
from headrace_schemas.topics import text_key


class Reservation(msgspec.Struct, frozen=True):
    """The most that one call may cost, and the ``day`` that it counts for, even if the call ends after midnight."""

    day: str
    amount: Amount


class Account:
    """The spending of the labeller of ``settings`` by its term ``process``, on calls of the version ``teacher``.

    ``log`` is started by its owner.
    """

    def __init__(
        self,
        log: TeachingLog,
        writer: TeachingWriter,
        *,
        settings: LabellerSettings,
        teacher: str,
        process: str,
        clock: Clock,
    ) -> None:
        self._log = log
        self._writer = writer
        self._settings = settings
        self._teacher = teacher
        self._process = process
        self._clock = clock
        self._totals: dict[str, Spending] = {}
        """What this term wrote of each day."""
        self._deaths: Counter[str] = Counter()

    async def look(self) -> None:
        """Take in what all processes wrote. Raises KafkaErrors that can't be mended here."""
        await patiently(self._log.refresh, doing="reading the teaching topic", clock=self._clock)
        self._deaths = Counter(
            key
            for one in self._log.spendings.values()
            if one.labeller == self._settings.name and one.teacher == self._teacher and one.process != self._process
            for key in frozenset(one.asking)
        )

    def deaths(self, text: str) -> int:
        """How many terms ended in a call of this teacher that ``text`` was part of, as of the last reading."""
        return self._deaths[text_key(text)]

    def refused(self, asked: Amount) -> str | None:
        """Why the budget has no room for ``asked`` today, as of the last reading; None if it has."""
        day = day_of(self._clock.now_ms())
        return exhausted(self._settings.budget(), self._log.spendings.values(), self._settings.name, day, asked)

    async def reserve(self, amount: Amount, texts: Sequence[str]) -> Reservation:
        """Write that ``amount`` may be spent on a call of ``texts``.

        Raises NotLeadingError, and KafkaErrors that can't be mended here.
        """
        day = day_of(self._clock.now_ms())
        await self._add(day, reserved=amount, settled=Amount(), asking=tuple(map(text_key, texts)))
        return Reservation(day, amount)

    async def give_up(self, reservation: Reservation) -> None:
        """Write that the call is over, and that what was reserved counts as spent. Raises as :meth:`reserve`."""
        await self._add(reservation.day, reserved=Amount(), settled=Amount())

    async def settle(self, reservation: Reservation, spent: Amount) -> None:
        """Write what the call took of its ``reservation``. Raises as :meth:`reserve`."""
        reserved = reservation.amount
        more = Amount(spent.texts - reserved.texts, spent.money - reserved.money)
        await self._add(reservation.day, reserved=more, settled=spent)

    async def _add(self, day: str, *, reserved: Amount, settled: Amount, asking: tuple[str, ...] = ()) -> None:
        before = self._totals.get(day) or Spending(
            labeller=self._settings.name,
            day=day,
            process=self._process,
            reserved_texts=0,
            reserved_money=0.0,
            settled_texts=0,
            settled_money=0.0,
            written_at_ms=0,
        )
        after = msgspec.structs.replace(
            before,
            reserved_texts=before.reserved_texts + reserved.texts,
            reserved_money=before.reserved_money + reserved.money,
            settled_texts=before.settled_texts + settled.texts,
            settled_money=before.settled_money + settled.money,
            written_at_ms=self._clock.now_ms(),
            teacher=self._teacher,
            asking=asking,
        )
        await self._writer.publish([after])
        self._totals[day] = after
