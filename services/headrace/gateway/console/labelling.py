"""Labelling: which texts are asked about, the labels that people give them, and how far people agree.

``client/suggestions.py`` decides which texts are worth a label, here and for `labels suggest`. A label goes to the
labels topic under the id that `labels publish` would give it. Where its request was answered without a label, a review
is published too.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from headrace.client.comparison import ResultsTopicError, other_results
from headrace.client.labels import Labelled, is_second, label_record, second_id, text_ids, tombstone, too_long
from headrace.client.reviews import ReviewPublisher
from headrace.client.suggestions import find_tasks
from headrace.core.clock import Clock
from headrace.core.label_agreement import Pair, pairs_of
from headrace.core.label_rules import Rules, learnt_as
from headrace.core.label_savings import Judged, Saving, savings
from headrace.core.near_duplicates import near_duplicates
from headrace.core.selection import Why
from headrace.core.text import label_name, quantity
from headrace.files import DatasetError
from headrace.files.annotations import Task
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import LABELLERS, Call, Endpoint
from headrace.gateway.console.desk import LEASE_S, Desk, Item
from headrace.gateway.console.doubts import Doubts, Search, in_child
from headrace.gateway.console.leases import Leases
from headrace.gateway.console.models import ModelsView
from headrace.gateway.console.producer import OpenProducer
from headrace.gateway.problems import conflict, invalid
from headrace.kafka.interface import Cluster, KafkaError, NotAuthorizedError, UnknownTopicError, connected
from headrace.learning.data.labels import There, read_labels
from headrace.learning.data.validation import text_keys
from headrace.learning.doubting import SOURCE as SUSPECT
from headrace.learning.doubting import Labelled as ToDoubt
from headrace.registry.compacted_topics import WorkersLog
from headrace_schemas.records import Review

if TYPE_CHECKING:
    from headrace.config import Settings

POOL = 200
"""Texts of a queue that are read at once."""
LAST_ANSWERS = 20_000
SINCE_MS = 7 * 24 * 3600 * 1000
REFILL_S = 15.0
"""The shortest time, in seconds, until an empty queue is filled again."""
STALE_S = 600.0
"""The age, in seconds, at which a queue is read anew."""
LABELS_S = 10.0
"""The shortest time, in seconds, until the labels topic is read again."""
MOST_UNDONE = 50
MOST_PEOPLE = 1000
MOST_SIMILAR = 20
RECENT = 12
AGAIN_S = 2.0
"""How soon, in seconds, the page asks again while suspects are being searched."""


class Queue(enum.StrEnum):
    """What somebody may label."""

    MARGIN = "margin"
    ABSTAINED = "abstained"
    DISAGREEMENT = "disagreement"
    SUSPECTS = "suspects"
    RANDOM = "random"
    SECOND = "second"


TITLES = {
    Queue.MARGIN: "Unsure",
    Queue.ABSTAINED: "No label",
    Queue.DISAGREEMENT: "Versions differ",
    Queue.SUSPECTS: "Suspected errors",
    Queue.RANDOM: "Random slice",
    Queue.SECOND: "Second opinion",
}
ABOUT = {
    Queue.MARGIN: "Answers whose two best labels are nearest to each other.",
    Queue.ABSTAINED: "Requests that were answered without a label. Your label is published as a review, too.",
    Queue.DISAGREEMENT: "Requests that two versions answer differently, the surest first.",
    Queue.SUSPECTS: "Labels that are probably wrong, the most doubtful first. Give the right one, or the same again.",
    Queue.RANDOM: "Requests chosen by chance. Certificates are made of these labels, so label from the top down.",
    Queue.SECOND: "Texts that somebody else labelled, to measure how far people agree. You don't see their label.",
}
_WHY = {
    Queue.MARGIN: Why.MARGIN,
    Queue.ABSTAINED: Why.ABSTAINED,
    Queue.DISAGREEMENT: Why.DISAGREEMENT,
    Queue.RANDOM: Why.RANDOM,
}


class Next(msgspec.Struct, frozen=True):
    """Asks for a text of a queue; ``skip`` names one that is not wanted."""

    queue: Queue
    skip: str | None = None


class Given(msgspec.Struct, frozen=True):
    """A label for the text ``at`` of a queue, and for the near duplicates ``also``."""

    queue: Queue
    at: str
    label: str
    also: tuple[str, ...] = ()


class Similar(msgspec.Struct, frozen=True):
    """A near duplicate."""

    at: str
    text: str


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text as it is shown; a blind one is shown without its answer."""

    at: str
    text: str
    why: str
    answered: str | None = None
    score: float | None = None
    given: str | None = None
    given_score: float | None = None
    blind: bool = False
    similar: tuple[Similar, ...] = ()
    lease_s: float = LEASE_S


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next text, or why there is none, in words. ``left`` counts the queue's texts that were read, with this one.

    ``told`` says what failed beside the label itself, ``again_s`` in how many seconds to ask again.
    """

    item: Shown | None = None
    left: int = 0
    empty: str | None = None
    again_s: float | None = None
    told: str | None = None
    undone: str | None = None


class QueueState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue as it is offered."""

    name: Queue
    title: str
    about: str


class Person(msgspec.Struct, frozen=True):
    """Who labelled how many texts, in all and since midnight (UTC)."""

    name: str
    labels: int
    today: int


class Recent(msgspec.Struct, frozen=True):
    """A label that somebody gave."""

    by: str
    label: str
    text: str
    at_ms: int
    source: str | None


class Learnt(msgspec.Struct, frozen=True):
    """How many rows a version learnt from, and what it reached on its test rows."""

    version: str
    created_at_ms: int
    rows: int
    metrics: dict[str, float]


class Overview(msgspec.Struct, frozen=True):
    """The queues and labels to choose from, and how far people have come."""

    queues: list[QueueState]
    labels: list[str]
    total: int
    people: list[Person]
    recent: list[Recent]
    agreement: list[Pair]
    learnt: list[Learnt]
    saved: list[Saving]


class _Done(msgspec.Struct, frozen=True):
    """A label that may be undone: its items, the record under the id of each before, and which were reviewed."""

    queue: Queue
    items: tuple[Item, ...]
    before: tuple[There | None, ...]
    reviewed: tuple[tuple[int, int], ...]

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(item.id for item in self.items)


class Labelling:
    """Queues, labels and people. One for all who label here."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        clock: Clock,
        models: ModelsView,
        producer: OpenProducer,
        search: Search = in_child,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._names = settings.topics.names()
        self._clock = clock
        self._models = models
        self._producer = producer
        self._reviews = ReviewPublisher(cluster, self._names.reviews)
        self._leases = Leases(cluster, self._names.idempotency, clock, producer)
        self._desk = Desk(clock, self._leases.holder_of)
        self._doubts = Doubts(clock, search)
        self._similar: dict[str, dict[str, list[Item]]] = {}
        self._filled_s: dict[str, float] = {}
        self._filling: dict[str, asyncio.Lock] = {}
        self._undo: OrderedDict[str, deque[_Done]] = OrderedDict()
        self._there: list[There] = []
        self._there_s = -math.inf
        self._reading = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/api/label", LABELLERS, self._overview),
            Endpoint("POST", "/api/label/next", LABELLERS, self._next),
            Endpoint("POST", "/api/label/give", LABELLERS, self._give),
            Endpoint("POST", "/api/label/undo", LABELLERS, self._take_back),
        )

    async def stop(self) -> None:
        await self._doubts.stop()
        await self._reviews.stop()
        await self._leases.stop()

    async def _overview(self, call: Call) -> Response:
        del call
        there = await self._labels()
        people = [one for one in there if one.by is not None and one.error is None]
        midnight_ms = self._clock.now_ms() // 86_400_000 * 86_400_000
        counts = Counter(one.by or "" for one in people)
        today = Counter(one.by or "" for one in people if (one.labelled_at_ms or 0) >= midnight_ms)
        last = sorted(people, key=lambda one: -(one.labelled_at_ms or 0))[:RECENT]
        by_text: dict[bytes, dict[str, str]] = {}
        for one, key in zip(people, text_keys([one.text for one in people]), strict=True):
            by_text.setdefault(key, {})[one.by or ""] = one.label
        return json_response(
            Overview(
                queues=[QueueState(queue, TITLES[queue], ABOUT[queue]) for queue in Queue],
                labels=await self._choices(there),
                total=sum(one.error is None for one in there),
                people=[Person(name, count, today[name]) for name, count in counts.most_common()],
                recent=[
                    Recent(one.by or "", one.label, one.text[:200], one.labelled_at_ms or 0, one.source) for one in last
                ],
                agreement=pairs_of(by_text.values()),
                learnt=await self._learnt(),
                saved=savings(_judged(there, (await self._models.log()).rules_of(self._models.name))),
            )
        )

    async def _learnt(self) -> list[Learnt]:
        log = await self._models.log()
        mine = [version for (of, _), version in log.versions.items() if of == self._models.name]
        return [
            Learnt(one.version, one.created_at_ms, one.lineage.rows, one.metrics)
            for one in sorted(mine, key=lambda one: one.created_at_ms)[-RECENT:]
            if one.lineage is not None
        ]

    async def _choices(self, there: Sequence[There]) -> list[str]:
        """The labels that may be given: those that the trainer allows, or those that were ever answered or given."""
        if allowed := self._settings.trainer.labels:
            return sorted(map(label_name, allowed))
        log = await self._models.log()
        champion = log.resolve(self._models.name, self._settings.worker.model)
        answered = () if champion is None else champion.labels
        rules = log.rules_of(self._models.name)
        names = {label_name(label) for label in answered} | {one.label for one in there if one.error is None}
        return sorted(name for name in names if rules.get(name, name) == name)

    async def _next(self, call: Call) -> Response:
        asked = await call.body(Next)
        if asked.skip is not None:
            for item in self._desk.find(_named(asked.queue, call), (asked.skip,)):
                self._desk.skip(item, call.session.id)
            await self._leases.release(call.session.id)
        return json_response(await self._asked(asked.queue, call))

    async def _give(self, call: Call) -> Response:
        given = await call.body(Given)
        who, by = call.session.id, call.caller.name
        label = label_name(given.label)
        if not label:
            raise invalid("The label has no name.")
        if (allowed := self._settings.trainer.labels) and label not in map(label_name, allowed):
            raise invalid("trainer.labels does not allow this label.")
        items = await self._claimed(given, call)
        now_ms = self._clock.now_ms()
        labels = [
            Labelled(
                item.id,
                item.text,
                label,
                item.source,
                item.labelled_at_ms or now_ms,
                by,
                item.guessed,
                item.version,
            )
            for item in items
        ]
        try:
            records = [label_record(one, self._settings.kafka.max_request_size) for one in labels]
        except DatasetError as error:
            raise invalid(str(error)) from None
        for one in labels:
            if (why := too_long(one.text, one.label, self._settings.trainer.max_text_bytes)) is not None:
                raise invalid(f"It could not be learnt: {why}.")
        producer = await self._producer.get()
        await producer.send_many(self._names.labels, records)
        self._desk.finish(items)
        await self._leases.finish([item.key for item in items], who)
        there = {one.id: one for one in self._there if one.error is None}
        waiting = tuple(item.place for item in items if item.unlabelled and item.place is not None)
        done = _Done(given.queue, tuple(items), tuple(there.get(item.id) for item in items), waiting)
        self._remember(who, done)
        self._there = [one for one in self._there if one.id not in done.ids]
        self._there += [
            There(one.id, one.text, one.label, None, one.source, one.labelled_at_ms, by, one.guessed, one.version)
            for one in labels
        ]
        told = await self._review([item for item in items if item.unlabelled], label, by)
        return json_response(msgspec.structs.replace(await self._asked(given.queue, call), told=told))

    async def _claimed(self, given: Given, call: Call) -> list[Item]:
        """The texts that are labelled, held at all gateways while that is written. Raises ProblemError where somebody
        else has the one that was shown.
        """
        who, name, named = call.session.id, _named(given.queue, call), (given.at, *given.also)
        if not self._desk.find(name, named):
            # Another gateway showed it.
            await self._fill(given.queue, name, call.caller.name)
        await self._leases.refresh()
        items = [item for item in self._desk.find(name, named) if self._desk.free_for(item, who)]
        self._desk.hold(items, who)
        held = await self._leases.claim([item.key for item in items], who)
        for item in items:
            if item.key not in held:
                self._desk.give_up(item)
        items = [item for item in items if item.key in held]
        if not any(item.at == given.at for item in items):
            raise conflict("Somebody else holds this text now, or it has a label already.")
        return items

    async def _review(self, items: Sequence[Item], label: str, by: str) -> str | None:
        """Publish a review of each. Returns in words why one could not be published."""
        reviews = [
            Review(
                results=self._names.results,
                partition=item.place[0],
                offset=item.place[1],
                label=label,
                origin="person",
                reviewed_at_ms=self._clock.now_ms(),
                id=item.request_id,
                by=by,
            )
            for item in items
            if item.place is not None
        ]
        if not reviews:
            return None
        try:
            await self._reviews.publish(reviews)
        except KafkaError as error:
            await self._renew_reviews()
            return f"The label is published, the review is not: {error}"
        return None

    async def _renew_reviews(self) -> None:
        """Make the producer of reviews anew: a dead one stays dead. Labels are published even without reviews."""
        failed, self._reviews = self._reviews, ReviewPublisher(self._cluster, self._names.reviews)
        await failed.stop()

    async def _take_back(self, call: Call) -> Response:
        done = self._undo.get(call.session.id)
        if not done:
            raise conflict("There is no label of this session left to undo.")
        last = done[-1]
        records = [
            tombstone(item.id, call.caller.name) if was is None else label_record(_labelled(was))
            for item, was in zip(last.items, last.before, strict=True)
        ]
        producer = await self._producer.get()
        await producer.send_many(self._names.labels, records)
        done.pop()
        told = None
        if last.reviewed:
            try:
                await self._reviews.take_back(self._names.results, last.reviewed)
            except KafkaError as error:
                await self._renew_reviews()
                told = f"The label is taken back, the review is not: {error}"
        await self._leases.reopen([item.key for item in last.items], call.session.id)
        self._desk.reopen(_named(last.queue, call), last.items, call.session.id)
        self._there = [one for one in self._there if one.id not in last.ids]
        self._there += [was for was in last.before if was is not None]
        asked = await self._asked(last.queue, call)
        return json_response(msgspec.structs.replace(asked, undone=last.queue.value, told=told))

    def _remember(self, who: str, done: _Done) -> None:
        self._undo.setdefault(who, deque(maxlen=MOST_UNDONE)).append(done)
        self._undo.move_to_end(who)
        if len(self._undo) > MOST_PEOPLE:
            self._undo.popitem(last=False)

    async def _asked(self, queue: Queue, call: Call) -> Asked:
        """The next text of ``queue`` for who calls."""
        who, by = call.session.id, call.caller.name
        name = _named(queue, call)
        empty = await self._fill(queue, name, by)
        item = await self._take(name, who)
        if item is None:
            again = AGAIN_S if queue is Queue.SUSPECTS and self._doubts.running_s is not None else None
            return Asked(
                again_s=again,
                empty=empty or "Nothing is left here for you; others may have the rest. Look again in a minute.",
            )
        similar = [one for one in self._similar.get(name, {}).get(item.at, ()) if self._desk.free_for(one, who)]
        shown = similar[:MOST_SIMILAR]
        return Asked(
            Shown(
                at=item.at,
                text=item.text,
                why=item.why,
                answered=None if item.blind else item.answered,
                score=None if item.blind else item.score,
                given=item.given,
                given_score=item.given_score,
                blind=item.blind,
                similar=tuple(Similar(one.at, one.text) for one in shown),
            ),
            self._desk.left(name, who),
        )

    async def _take(self, name: str, who: str) -> Item | None:
        """The first text of a queue for ``who`` that nobody has at any gateway."""
        await self._leases.refresh()
        while (item := self._desk.take(name, who)) is not None:
            if await self._leases.claim([item.key], who):
                return item
            self._desk.give_up(item)
        return None

    async def _fill(self, queue: Queue, name: str, by: str) -> str | None:
        """Read a queue's texts when it is empty or old. Returns why it is empty, if that is known."""
        async with self._filling.setdefault(name, asyncio.Lock()):
            age_s = self._clock.monotonic() - self._filled_s.get(name, -math.inf)
            if age_s < REFILL_S or (age_s < STALE_S and self._desk.left(name, "")):
                return None
            if queue is Queue.SECOND:
                items, empty = self._second(await self._labels(), by), "Nobody else has labelled a text here yet."
            elif queue is Queue.SUSPECTS:
                items, empty = await self._suspects()
                if not items and self._doubts.running_s is not None:
                    return empty
            else:
                items, empty = await self._suggested(queue)
            near = await asyncio.to_thread(near_duplicates, [item.text for item in items])
            self._similar[name] = {
                item.at: [items[place] for place in places] for item, places in zip(items, near, strict=True) if places
            }
            self._desk.fill(name, items)
            self._filled_s[name] = self._clock.monotonic()
            return empty if not items else None

    async def _suggested(self, queue: Queue) -> tuple[list[Item], str]:
        beside = None
        if queue is Queue.DISAGREEMENT:
            try:
                beside = await self._beside()
            except (ResultsTopicError, UnknownTopicError, NotAuthorizedError) as error:
                return [], f"There are no answers of a second version to compare with. {error}"
        since = self._clock.now_ms() - SINCE_MS
        found = await find_tasks(self._cluster, self._settings, _WHY[queue], POOL, since, LAST_ANSWERS, beside)
        keys = text_keys([task.text for task in found.tasks])
        ids = text_ids([task.text for task in found.tasks])
        items = [_item(task, key, id_) for task, key, id_ in zip(found.tasks, keys, ids, strict=True)]
        if not found.answers:
            return items, "There is no answer of the last seven days."
        return items, "Every text of this queue has a label, was erased or is gone."

    async def _beside(self) -> str:
        log = await self._models.log()
        async with connected(WorkersLog(self._cluster, self._names.workers, log)) as workers:
            return other_results(workers, self._names.requests, self._names.results)

    async def _suspects(self) -> tuple[list[Item], str]:
        """The labels that the last search doubts and nobody has looked at since; and why there is none."""
        rules = (await self._models.log()).rules_of(self._models.name)
        there = {one.id: one for one in await self._labels() if one.error is None}
        learnt = {id_: label for id_, one in there.items() if (label := learnt_as(one.label, rules)) is not None}
        self._doubts.look(
            [
                ToDoubt(
                    text=there[id_].text,
                    label=label,
                    id=id_,
                    source=there[id_].source,
                    labelled_at_ms=there[id_].labelled_at_ms,
                )
                for id_, label in learnt.items()
            ]
        )
        found = self._doubts.found
        items = [
            Item(
                key=hashlib.sha256(b"suspect" + id_.encode()).digest(),
                at=id_,
                text=one.text,
                id=id_,
                why="its label is doubted",
                source=one.source,
                answered=one.answered,
                score=one.score,
                given=one.given,
                given_score=one.given_score,
                labelled_at_ms=one.labelled_at_ms,
                guessed=there[id_].guessed,
                version=there[id_].version,
            )
            for one in ([] if found is None else found.suspects)
            if (id_ := one.replaces or "") in learnt
            and (there[id_].text, learnt[id_]) == (one.text, one.given)
            and there[id_].source != SUSPECT
        ]
        if (seconds := self._doubts.running_s) is not None:
            return items, f"Looking for labels that are probably wrong, for {seconds:.0f} s by now."
        if self._doubts.error is not None:
            return items, self._doubts.error
        rows = 0 if found is None else found.rows
        return items, f"None of {quantity(rows, 'label')} that could be looked at is doubted, or somebody looked again."

    def _second(self, there: Sequence[There], by: str) -> list[Item]:
        """The texts that others labelled and ``by`` did not, in a random order that is the same for all."""
        usable = [one for one in there if one.error is None and one.by is not None]
        keys = text_keys([one.text for one in usable])
        mine = {key for one, key in zip(usable, keys, strict=True) if one.by == by}
        first: dict[bytes, There] = {}
        for one, key in zip(usable, keys, strict=True):
            if key not in mine and not is_second(one.id):
                first.setdefault(key, one)
        ordered = sorted(first.items(), key=lambda pair: hashlib.sha256(pair[0]).digest())[:POOL]
        return [
            Item(
                key=hashlib.sha256(key + by.encode()).digest(),
                at=one.id,
                text=one.text,
                id=second_id(one.id, by),
                why="labelled by somebody else",
                # As the first label's, so that a random slice stays one.
                source=one.source,
                blind=True,
            )
            for key, one in ordered
        ]

    async def _labels(self) -> list[There]:
        """The labels topic as it was a moment ago, with the labels that were given here since."""
        async with self._reading:
            if self._clock.monotonic() - self._there_s >= LABELS_S:
                self._there = await read_labels(self._cluster, self._names.labels)
                self._there_s = self._clock.monotonic()
            return self._there


def _judged(there: Sequence[There], rules: Rules) -> list[Judged]:
    """The labels that tell by which answer their text was chosen; one a text."""
    found = []
    for one in there:
        if one.source is None or one.guessed is None or one.version is None or is_second(one.id):
            continue
        label, guessed = learnt_as(one.label, rules), learnt_as(label_name(one.guessed), rules)
        if label is not None and guessed is not None:
            found.append(Judged(one.source, one.version, guessed != label))
    return found


def _named(queue: Queue, call: Call) -> str:
    """The queue's name on the desk. For second opinions each person has a queue, of what the others labelled."""
    return f"{queue}/{call.caller.name}" if queue is Queue.SECOND else queue.value


def _labelled(was: There) -> Labelled:
    return Labelled(was.id, was.text, was.label, was.source, was.labelled_at_ms, was.by, was.guessed, was.version)


def _item(task: Task, key: bytes, id_: str) -> Item:
    partition, _, offset = task.at.partition("@")
    return Item(
        key=key,
        at=task.at,
        text=task.text,
        id=id_,
        why=task.why,
        source=task.source,
        place=(int(partition), int(offset)),
        unlabelled=task.answered is None,
        request_id=task.id,
        answered=task.answered,
        score=task.score,
        guessed=task.guessed,
        version=task.version,
        blind=task.blind,
    )
