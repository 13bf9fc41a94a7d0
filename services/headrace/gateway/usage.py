"""What each API key asks for, summed up and written to classify.usage now and then."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.clock import Clock
from headrace.core.spending import day_of
from headrace.gateway.access import Identity
from headrace.gateway.bodies import ClassifyItem
from headrace.kafka.interface import KafkaError
from headrace.process.logs import Recurring
from headrace.registry.compacted_topics import UsageWriter
from headrace_schemas.records import Usage

EVERY_S = 10.0


class UsageMeter:
    """Of one process. Each record has a key's totals of a day, so that one which is written twice counts once."""

    def __init__(self, writer: UsageWriter | None, process: str, clock: Clock) -> None:
        self._writer = writer
        self._process = process
        self._clock = clock
        self._totals: dict[tuple[str, str], Usage] = {}
        self._unwritten: set[tuple[str, str]] = set()
        self._fault = Recurring("usage.unwritten")

    def count(self, identity: Identity, items: Sequence[ClassifyItem]) -> None:
        """One call more of ``identity``, with these texts."""
        if self._writer is None:
            return
        text_bytes = sum(len(one.text.encode()) for one in items)
        now_ms = self._clock.now_ms()
        key = (identity.id, day_of(now_ms))
        known = self._totals.get(key)
        self._totals[key] = Usage(
            api_key=identity.id,
            day=key[1],
            process=self._process,
            calls=1 + (known.calls if known else 0),
            texts=len(items) + (known.texts if known else 0),
            text_bytes=text_bytes + (known.text_bytes if known else 0),
            written_at_ms=now_ms,
            tenant=identity.tenant,
        )
        self._unwritten.add(key)

    async def write(self) -> None:
        """Write what has changed; what can't be written now is written next time."""
        if self._writer is None or not self._unwritten:
            return
        now, self._unwritten = self._unwritten, set()
        try:
            await self._writer.publish([self._totals[key] for key in sorted(now)])
        except KafkaError as error:
            self._unwritten |= now
            self._fault.event(error=str(error))
        today = day_of(self._clock.now_ms())
        for key in [key for key in self._totals if key[1] < today and key not in self._unwritten]:
            del self._totals[key]

    async def run(self) -> None:
        """Write every ten seconds until cancelled."""
        while True:
            await self._clock.sleep(EVERY_S)
            await self.write()
