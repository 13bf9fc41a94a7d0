"""The labeller as a service: it stands by, is elected, asks its teacher beside the answers, and publishes what it says.

Before each call a reservation is acknowledged, and immediately before it is handed over the lease is looked at. So of
two labellers one spends, a killed one has paid in vain for one batch at most, and what was never settled counts as
spent. Labels are published before the spending is settled: what is paid for is on the log, or counts as spent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import one_of_all, words_of
from headrace.core.spending import Amount, day_of, exhausted, next_day_ms
from headrace.kafka.election import Election, NotLeadingError
from headrace.kafka.interface import Cluster, Outgoing
from headrace.kafka.reach import Reach, missing_of
from headrace.kafka.retry import PatientSender, patiently
from headrace.labeller.answers import AnswersReader, Chosen, Waiting
from headrace.labeller.gold import Agreement, GoldText, GoldTexts
from headrace.labeller.known_texts import KnownTexts
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.interface import SoftLabels, Teacher, TeacherError
from headrace.labeller.teaching import ranked
from headrace.process.logs import Reminder, event
from headrace.registry.compacted_topics import TeachingLog, TeachingWriter
from headrace_schemas.codec import encode_machine_label, encode_review
from headrace_schemas.paths import Decode
from headrace_schemas.records import LabellerState, MachineLabel, Review, Spending
from headrace_schemas.topics import labeller_key, machine_labels_key, review_key

POLL_S = 0.5
LOOK_S = 1.0
EXHAUSTED_LOOK_S = 60.0
STOP_S = 10.0
FIRST_PAUSE_S = 1.0


class LabellerTopics(msgspec.Struct, frozen=True):
    """The names of the topics that a labeller reads and writes."""

    requests: str
    results: str
    labels: str
    machine_labels: str
    reviews: str
    teaching: str


class Labeller:
    """One labeller. ``process`` names this run of it; ``decode`` reads a request as workers do."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        topics: LabellerTopics,
        settings: LabellerSettings,
        teacher: Teacher,
        decode: Decode,
        max_text_bytes: int,
        process: str,
        clock: Clock,
        randomness: random.Random,
        metrics: LabellerMetrics,
        resume: bool = False,
        away_after: float = 10.0,
    ) -> None:
        self._cluster = cluster
        self._topics = topics
        self._settings = settings
        self._teacher = teacher
        self._decode = decode
        self._max_text_bytes = max_text_bytes
        self._process = process
        self._clock = clock
        self._randomness = randomness
        self._metrics = metrics
        self._resume = resume
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        metrics.broker.follow(lambda: self._reach.connected)
        self._election = Election(
            cluster, topic=topics.teaching, group=f"{settings.group}-election", who="labeller", clock=clock
        )
        self._term: Term | None = None

    @property
    def unready(self) -> str | None:
        """Why this labeller does not do its work, in words; None when it stands by or asks."""
        if self._reach.unready is not None:
            return self._reach.unready
        if not self._election.joined:
            return "not in the group yet"
        if self._election.leads and self._term is not None:
            return self._term.stopped or self._term.starting
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set. Raises a KafkaError that can't be mended here."""
        looker = self._cluster.consumer()
        await looker.start()
        topics = msgspec.structs.astuple(self._topics)
        watching = asyncio.create_task(self._reach.watch(lambda: missing_of(looker, topics)))
        try:
            await self._election.start()
            event("labeller.started", labeller=self._settings.name, teacher=self._teacher.identity.version)
            async with asyncio.TaskGroup() as group:
                electing, working = group.create_task(self._election.run()), group.create_task(self._work())
                await stop.wait()
                electing.cancel()
                working.cancel()
        except ExceptionGroup as raised:
            raise one_of_all(raised) from raised
        finally:
            watching.cancel()
            await looker.stop()
            await self._election.stop()
            event("labeller.stopped", labeller=self._settings.name)

    async def _work(self) -> None:
        while True:
            await self._election.won()
            self._metrics.leads(leads=True)
            event("labeller.leads", labeller=self._settings.name)
            self._term = Term(
                cluster=self._cluster,
                topics=self._topics,
                settings=self._settings,
                teacher=self._teacher,
                decode=self._decode,
                max_text_bytes=self._max_text_bytes,
                process=self._process,
                clock=self._clock,
                randomness=self._randomness,
                metrics=self._metrics,
                sender=PatientSender(self._cluster, self._clock, self._election.confirm),
                resume=self._resume,
            )
            self._resume = False
            leading = asyncio.create_task(self._term.run())
            lost = asyncio.create_task(self._election.lost())
            try:
                await asyncio.wait((leading, lost), return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
            except NotLeadingError as error:
                event("labeller.lost", labeller=self._settings.name, why=str(error))
            finally:
                for task in (leading, lost):
                    task.cancel()
                await asyncio.gather(leading, lost, return_exceptions=True)
                self._metrics.leads(leads=False)


class Term:
    """What a labeller does from when it is elected until another may be."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        topics: LabellerTopics,
        settings: LabellerSettings,
        teacher: Teacher,
        decode: Decode,
        max_text_bytes: int,
        process: str,
        clock: Clock,
        randomness: random.Random,
        metrics: LabellerMetrics,
        sender: PatientSender,
        resume: bool,
    ) -> None:
        self._topics = topics
        self._settings = settings
        self._teacher = teacher
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._sender = sender
        self._resume = resume
        self._log = TeachingLog(cluster, topics.teaching)
        self._writer = TeachingWriter(sender, topics.teaching)
        self._gold = GoldTexts(randomness)
        self._agreement = Agreement()
        self._waiting = Waiting(settings.waiting, metrics)
        self._known = KnownTexts(
            cluster,
            labels=topics.labels,
            machine_labels=topics.machine_labels,
            teacher=teacher.identity.version,
            gold=self._gold,
            max_text_bytes=max_text_bytes,
            clock=clock,
        )
        self._answers = AnswersReader(
            cluster,
            requests=topics.requests,
            results=topics.results,
            settings=settings,
            decode=decode,
            waiting=self._waiting,
            clock=clock,
            metrics=metrics,
        )
        self._totals: dict[str, Spending] = {}
        """What this process wrote of each day."""
        self._day = ""
        """The day of the last reservation."""
        self._reminder = Reminder()
        self._owed = 0.0
        """Gold texts that are due, a fraction of one included."""
        self.stopped: str | None = None
        """Why this labeller asks nothing, until an operator lets it go on."""
        self.starting: str | None = "the labels are being read"

    async def run(self) -> None:
        """Lead until cancelled. Raises NotLeadingError, and KafkaErrors that can't be mended here."""
        try:
            await patiently(self._log.start, doing="reading the teaching topic", clock=self._clock)
            await self._known.start()
            await self._look_at_state()
            self.starting = None
            async with asyncio.TaskGroup() as group:
                group.create_task(self._answers.run())
                group.create_task(self._ask_on())
        except ExceptionGroup as raised:
            raise one_of_all(raised) from raised
        finally:
            await self._known.stop()
            await self._log.stop()

    async def _look_at_state(self) -> None:
        """Whether a labeller of this name was stopped; ``resume`` lets it go on."""
        state = self._log.states.get(labeller_key(self._settings.name))
        same = state is not None and state.teacher == self._teacher.identity.version
        if state is None or not state.stopped or not same:
            self._stop_for(None)
            return
        if self._resume:
            await self._write_state(stopped=False, reason=None)
            self._stop_for(None)
            return
        self._stop_for(state.reason or "it was stopped")

    def _stop_for(self, why: str | None) -> None:
        if why is not None and why != self.stopped:
            mend = "`headrace labeller --resume` lets it go on"
            event("labeller.does_not_ask", level="error", labeller=self._settings.name, why=why, mend=mend)
        self.stopped = why
        self._metrics.stopped(stopped=why is not None)

    async def _ask_on(self) -> None:
        while True:
            await self._known.look(0.0 if len(self._waiting) else POLL_S)
            if self.stopped is not None:
                await self._clock.sleep(LOOK_S)
                continue
            batch = self._next_batch()
            if batch:
                await self._ask(batch)

    def _next_batch(self) -> list[Chosen]:
        """What is asked about next, each text once and none that needs no label."""
        batch: dict[str, Chosen] = {}
        most = min(self._settings.batch, max(1, self._teacher.batch))
        while len(batch) < most and len(self._waiting):
            for chosen in self._waiting.take(most - len(batch)):
                if chosen.text in batch or self._known.needs_none(chosen.text):
                    self._metrics.left("known")
                else:
                    batch[chosen.text] = chosen
        return list(batch.values())

    async def _ask(self, batch: Sequence[Chosen]) -> None:
        self._owed += len(batch) * self._settings.gold
        gold = self._gold.draw(int(self._owed), self._teacher.labels)
        self._owed -= int(self._owed)
        texts = [chosen.text for chosen in batch] + [one.text for one in gold]
        pause_s = FIRST_PAUSE_S
        for tried in range(1, self._settings.tries + 1):
            within = Amount(len(texts), self._teacher.within(texts).cost)
            await self._reserve(within)
            try:
                given = await self._teacher.label(texts)
            except TeacherError as error:
                self._metrics.teacher(up=False)
                event(
                    "teacher.failed",
                    level="warning",
                    teacher=self._teacher.identity.teacher,
                    tried=tried,
                    why=words_of(error),
                )
                # Nothing was labelled, so nothing was paid for: an endpoint that is away does not use the budget up.
                await self._settle(within, Amount())
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, self._settings.longest_wait)
                continue
            self._metrics.teacher(up=True)
            await self._publish(batch, given)
            await self._settle(within, Amount(len(texts), given.spent.cost))
            await self._judge(gold, given, len(batch))
            return
        self._metrics.left("teacher", len(batch))
        event("teacher.texts_left", level="warning", left=len(batch), tries=self._settings.tries)

    async def _reserve(self, asked: Amount) -> None:
        """Write that ``asked`` may be spent, as soon as the budget has room for it."""
        while True:
            await patiently(self._log.refresh, doing="reading the teaching topic", clock=self._clock)
            now_ms = self._clock.now_ms()
            day = day_of(now_ms)
            why = exhausted(self._settings.budget(), self._log.spendings.values(), self._settings.name, day, asked)
            self._metrics.exhausted(exhausted=why is not None)
            if why is None:
                break
            if self._reminder.due("budget", self._clock.monotonic()):
                event("labeller.budget", level="warning", labeller=self._settings.name, why=why)
            await self._clock.sleep(min(EXHAUSTED_LOOK_S, (next_day_ms(now_ms) - now_ms) / 1000))
        self._reminder.done()
        before = self._totals.get(day) or self._nothing(day)
        await self._write(
            msgspec.structs.replace(
                before,
                reserved_texts=before.reserved_texts + asked.texts,
                reserved_money=before.reserved_money + asked.money,
            )
        )
        self._day = day

    async def _settle(self, reserved: Amount, spent: Amount) -> None:
        """Write what the call took of what was ``reserved`` for it."""
        before = self._totals[self._day]
        await self._write(
            msgspec.structs.replace(
                before,
                reserved_texts=before.reserved_texts - reserved.texts + spent.texts,
                reserved_money=before.reserved_money - reserved.money + spent.money,
                settled_texts=before.settled_texts + spent.texts,
                settled_money=before.settled_money + spent.money,
            )
        )

    def _nothing(self, day: str) -> Spending:
        return Spending(
            labeller=self._settings.name,
            day=day,
            process=self._process,
            reserved_texts=0,
            reserved_money=0.0,
            settled_texts=0,
            settled_money=0.0,
            written_at_ms=0,
        )

    async def _write(self, spending: Spending) -> None:
        written = msgspec.structs.replace(spending, written_at_ms=self._clock.now_ms())
        await self._writer.publish([written])
        self._totals[written.day] = written

    async def _publish(self, batch: Sequence[Chosen], given: SoftLabels) -> None:
        """Publish the labels of ``batch``, and reviews of what was answered without one."""
        identity, now_ms = self._teacher.identity, self._clock.now_ms()
        labels = [
            machine_label(
                chosen.text,
                given,
                place,
                self._teacher,
                now_ms=now_ms,
                cost=given.spent.cost / max(1, len(given.scores)),
                source=f"{self._topics.requests}/{chosen.partition}@{chosen.offset}",
            )
            for place, chosen in enumerate(batch)
        ]
        # Who is busy is asked again when the text comes again; what can't be answered is never asked again.
        kept = [label for place, label in enumerate(labels) if not _passes(given, place)]
        await self._sender.send_many(
            self._topics.machine_labels,
            [Outgoing(encode_machine_label(label), machine_labels_key(label)) for label in kept],
        )
        for label in kept:
            self._known.asked(label.text)
        reviews: dict[int, list[Outgoing]] = {}
        for chosen, label in zip(batch, labels, strict=True):
            if label.label is None:
                self._metrics.left("failed")
            elif chosen.abstained:
                review = Review(
                    results=self._topics.results,
                    partition=chosen.partition,
                    offset=chosen.offset,
                    label=label.label,
                    origin="teacher",
                    reviewed_at_ms=now_ms,
                    id=chosen.id,
                    score=label.scores[0].score,
                    by=identity.version,
                )
                key = review_key(review.results, review.partition, review.offset)
                reviews.setdefault(chosen.partition, []).append(Outgoing(encode_review(review), key))
        for partition, records in reviews.items():
            await self._sender.send_batch(self._topics.reviews, partition, records)
        labelled = sum(label.label is not None for label in labels)
        self._metrics.labelled(labelled, sum(map(len, reviews.values())), given.spent.cost)

    async def _judge(self, gold: Sequence[GoldText], given: SoftLabels, first: int) -> None:
        """Count how the teacher did on gold texts, which stand behind the ``first`` texts of the call."""
        if not gold:
            return
        for place, one in enumerate(gold, first):
            label = None if place in given.failures else self._teacher.labels[int(given.scores[place].argmax())]
            self._agreement.add(one, label)
        self._metrics.agreement(*self._agreement.shares())
        if (why := self._agreement.broken(self._settings)) is not None:
            await self._write_state(stopped=True, reason=why)
            self._stop_for(why)

    async def _write_state(self, *, stopped: bool, reason: str | None) -> None:
        state: LabellerState = self._agreement.state(
            self._settings.name,
            self._teacher.identity.version,
            stopped=stopped,
            reason=reason,
            now_ms=self._clock.now_ms(),
        )
        await self._writer.publish([state])


def machine_label(
    text: str, given: SoftLabels, place: int, teacher: Teacher, *, now_ms: int, cost: float, source: str
) -> MachineLabel:
    """What ``given`` says of its text at ``place``, as a record: the best scores, or why there are none."""
    identity = teacher.identity
    failure = given.failures.get(place)
    scores = () if failure is not None else ranked(given.scores[place], teacher.labels)
    return MachineLabel(
        text=text,
        teacher=identity.version,
        labelled_at_ms=now_ms,
        label=scores[0].label if scores else None,
        scores=scores,
        prompt=identity.prompt,
        cost=round(cost, 9),
        reason=None if failure is None else f"{failure.code}: {failure.message}",
        source=source,
    )


def _passes(given: SoftLabels, place: int) -> bool:
    failure = given.failures.get(place)
    return failure is not None and failure.passing
