"""Who looks at which text: leases, so that two people at one queue never label the same text at once.

A lease ends by itself, so that a text which somebody left comes to others. The desk has those of this gateway's
sessions in memory; ``leases.py`` shares them with other gateways. After a restart the labels topic tells what was
labelled, and skipped texts are asked about again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from headrace.core.clock import Clock

LEASE_S = 300.0
MOST_DONE = 100_000
MOST_SKIPPED = 10_000
MOST_PEOPLE = 1000


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A text to label. ``key`` is the same for texts that training can't tell apart, in whichever queue they are.

    ``at`` names it within its queue, ``place`` is that of its request, where it has one, and ``unlabelled`` says that
    the request was answered without a label. ``id`` is the label's own; ``source`` says how the text was chosen. A
    ``blind`` one is shown without anything that could lead the person who labels it. A suspect has a label, ``given``
    with ``given_score``, and keeps ``labelled_at_ms`` where that is not None. ``guessed`` is the label that ``version``
    held for the likeliest.
    """

    key: bytes
    at: str
    text: str
    id: str
    why: str
    source: str | None
    place: tuple[int, int] | None = None
    unlabelled: bool = False
    request_id: str | None = None
    answered: str | None = None
    score: float | None = None
    given: str | None = None
    given_score: float | None = None
    labelled_at_ms: int | None = None
    guessed: str | None = None
    version: str | None = None
    blind: bool = False


class _Bounded(OrderedDict[bytes, None]):
    """The last so many keys."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, key: bytes) -> None:
        self[key] = None
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)


class Desk:
    """The queues, and who has which text of them. ``who`` is a session, as two people may share a key.

    ``elsewhere`` says who has the text with a key by the leases of all gateways.
    """

    def __init__(self, clock: Clock, elsewhere: Callable[[bytes], str | None] = lambda _: None) -> None:
        self._clock = clock
        self._elsewhere = elsewhere
        self._queues: dict[str, list[Item]] = {}
        self._leases: dict[bytes, tuple[str, float]] = {}
        self._done = _Bounded(MOST_DONE)
        self._skipped: OrderedDict[str, _Bounded] = OrderedDict()

    def fill(self, queue: str, items: Sequence[Item]) -> None:
        """Replace the texts of a queue, leaving out those that were labelled meanwhile."""
        self._queues[queue] = [item for item in items if item.key not in self._done]

    def take(self, queue: str, who: str) -> Item | None:
        """The first text of ``queue`` for ``who``: the one they hold already, or one that nobody holds."""
        items = self._queues.get(queue, ())
        skipped = self._skipped.get(who, ())
        free = [item for item in items if item.key not in self._done and item.key not in skipped]
        held = [item for item in free if self._holder(item.key) == who]
        for item in held or (item for item in free if self._holder(item.key) is None):
            self._leases[item.key] = who, self._clock.monotonic() + LEASE_S
            return item
        return None

    def left(self, queue: str, who: str) -> int:
        """How many texts of ``queue`` there are for ``who``."""
        skipped = self._skipped.get(who, ())
        return sum(
            item.key not in self._done and item.key not in skipped and self._holder(item.key) in (None, who)
            for item in self._queues.get(queue, ())
        )

    def find(self, queue: str, at: Collection[str]) -> list[Item]:
        """The texts of ``queue`` with these names that have no label yet."""
        return [item for item in self._queues.get(queue, ()) if item.at in at and item.key not in self._done]

    def free_for(self, item: Item, who: str) -> bool:
        """Whether nobody else has the text."""
        return item.key not in self._done and self._holder(item.key) in (None, who)

    def hold(self, items: Iterable[Item], who: str) -> None:
        """Lease texts beside the one that was taken."""
        until_s = self._clock.monotonic() + LEASE_S
        self._leases.update((item.key, (who, until_s)) for item in items)

    def give_up(self, item: Item) -> None:
        """End the lease of a text that somebody at another gateway got first."""
        self._leases.pop(item.key, None)

    def release(self, who: str) -> None:
        """Free everything that ``who`` holds."""
        self._leases = {key: lease for key, lease in self._leases.items() if lease[0] != who}

    def skip(self, item: Item, who: str) -> None:
        """``who`` does not want the text; others may label it."""
        self.release(who)
        self._skipped.setdefault(who, _Bounded(MOST_SKIPPED)).add(item.key)
        self._skipped.move_to_end(who)
        if len(self._skipped) > MOST_PEOPLE:
            self._skipped.popitem(last=False)

    def finish(self, items: Iterable[Item]) -> None:
        """These have a label now."""
        for item in items:
            self._done.add(item.key)
            self._leases.pop(item.key, None)

    def reopen(self, queue: str, items: Sequence[Item], who: str) -> None:
        """Their labels were taken back: ``who`` gets them again, before all others."""
        for item in items:
            self._done.pop(item.key, None)
        keys = {item.key for item in items}
        self._queues[queue] = [*items, *(item for item in self._queues.get(queue, ()) if item.key not in keys)]
        if who in self._skipped:
            for key in keys:
                self._skipped[who].pop(key, None)
        self.release(who)
        self.hold(items[:1], who)

    def _holder(self, key: bytes) -> str | None:
        lease = self._leases.get(key)
        if lease is None:
            return self._elsewhere(key)
        if self._clock.monotonic() >= lease[1]:
            del self._leases[key]
            return self._elsewhere(key)
        return lease[0]
