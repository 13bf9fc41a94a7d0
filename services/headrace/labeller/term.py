"""What a labeller does while it leads: it chooses among the answers, asks its teacher, and publishes the labels.

Before each call a reservation is acknowledged, and immediately before the call the lease is checked. So only one of two
labellers spends, a killed one has paid in vain for one batch at most, and a reservation that was never settled counts
as spent. Labels are published before the spending is settled, so labels that are paid for are on the log. Reviews
follow the labels. A successor chooses the requests that were not done again, and publishes missing reviews.

A text over which a term or the teacher died is asked about alone, and after some deaths no more, as poison pills are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import one_of_all, words_of
from headrace.core.label_rules import Rules
from headrace.core.spending import Amount, next_day_ms
from headrace.kafka.interface import Cluster, Outgoing
from headrace.kafka.retry import PatientSender, patiently
from headrace.kafka.tracing import BatchSpans
from headrace.labeller.account import Account, Reservation
from headrace.labeller.answers import AnswersReader, Chosen, Waiting
from headrace.labeller.gold import Agreement, GoldText, GoldTexts
from headrace.labeller.known_texts import KnownTexts
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.reviews import Due, ReviewWriter
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.interface import SoftLabels, Teacher, TeacherDiedError, TeacherError
from headrace.labeller.teaching import ranked
from headrace.process.logs import Reminder, event
from headrace.process.tracing import NO_TRACER, Tracer
from headrace.registry.compacted_topics import ModelsLog, TeachingLog, TeachingWriter
from headrace_schemas.codec import encode_machine_label
from headrace_schemas.paths import Decode
from headrace_schemas.records import LabellerState, MachineLabel
from headrace_schemas.topics import labeller_key, machine_labels_key, text_key

POLL_S = 0.5
EXHAUSTED_LOOK_S = 60.0
FIRST_PAUSE_S = 1.0
MOST_TEXT_BYTES = 512 << 10
MOST_RECORD_BYTES = 1_000_000
"""Most bytes of a text, and of a machine label in JSON: a topic takes a megabyte."""
MOST_DEATHS = 3
"""Terms that may die in calls with a text; the first of them may have died over another text of its batch."""
KILLS = "kills-process"


class LabellerTopics(msgspec.Struct, frozen=True):
    """The names of the topics that a labeller reads and writes."""

    requests: str
    results: str
    labels: str
    machine_labels: str
    reviews: str
    teaching: str
    models: str


class Term:
    """What a labeller does from its election until another may be elected."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        topics: LabellerTopics,
        model: str,
        settings: LabellerSettings,
        teacher: Teacher,
        decode: Decode,
        max_text_bytes: int,
        process: str,
        clock: Clock,
        randomness: random.Random,
        metrics: LabellerMetrics,
        confirm: Callable[[], None],
        resume: bool,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._topics = topics
        self._settings = settings
        self._teacher = teacher
        self._confirm = confirm
        self._clock = clock
        self._metrics = metrics
        self._sender = PatientSender(cluster, clock, confirm)
        self._spans = BatchSpans(tracer, topics.results, settings.group)
        self._resume = resume
        self._log = TeachingLog(cluster, topics.teaching)
        self._models = ModelsLog(cluster, topics.models)
        self._model = model
        self._writer = TeachingWriter(self._sender, topics.teaching)
        self._account = Account(
            self._log, self._writer, settings=settings, teacher=teacher.identity.version, process=process, clock=clock
        )
        self._gold = GoldTexts(randomness)
        self._agreement = Agreement()
        self._waiting = Waiting(settings.waiting, metrics)
        self._known = KnownTexts(
            cluster,
            labels=topics.labels,
            machine_labels=topics.machine_labels,
            reviews=topics.reviews,
            results=topics.results,
            teacher=teacher.identity.version,
            classes=teacher.labels,
            gold=self._gold,
            max_text_bytes=max_text_bytes,
            clock=clock,
        )
        self._reviews = ReviewWriter(
            self._sender, self._known, topic=topics.reviews, results=topics.results, clock=clock, metrics=metrics
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
        self._reminder = Reminder()
        self._owed = 0.0
        """Gold texts that are due, a fraction of one included."""
        self._not_before_s = 0.0
        """When the teacher may be asked again, by the clock that never goes back."""
        self._pause_s = FIRST_PAUSE_S
        self.ending = False
        """Set from outside: no further call begins."""
        self._swept: tuple[int, int, Rules] = 0, 0, {}
        """How many requests had come, how many labels of people, and the rules, when the queue was last looked at."""
        self._reservation: Reservation | None = None
        """Of the call that is under way."""
        self.calling = False
        """Whether a call is paid for whose labels are not published and settled yet."""
        self.stopped: str | None = None
        """Why this labeller asks nothing, until an operator lets it go on."""
        self._known_read = False

    @property
    def starting(self) -> str | None:
        """Why it looks at no answer yet, in words; None once it does."""
        if not self._known_read:
            return "the labels are being read"
        return None if self._answers.follows else "the place among the answers is looked for"

    async def run(self) -> None:
        """Lead until cancelled. Raises NotLeadingError, and KafkaErrors that can't be mended here."""
        try:
            await patiently(self._log.start, doing="reading the teaching topic", clock=self._clock)
            await patiently(self._models.start, doing="reading the rules of labels", clock=self._clock)
            await self._known.start()
            await self._look_at_state()
            self._known_read = True
            async with asyncio.TaskGroup() as group:
                group.create_task(self._answers.run())
                group.create_task(self._ask_on())
        except ExceptionGroup as raised:
            raise one_of_all(raised) from raised
        finally:
            await self._known.stop()
            await self._models.stop()
            await self._log.stop()

    async def _look_at_state(self) -> None:
        """Whether a labeller of this name was stopped; ``resume`` lets it go on, and counts agreement anew."""
        state = self._log.states.get(labeller_key(self._settings.name))
        if state is None or state.teacher != self._teacher.identity.version:
            self._stop_for(None)
        elif self._resume:
            await self._write_state(stopped=False, reason=None)
            self._stop_for(None)
        else:
            self._agreement.restore(state)
            self._metrics.agreement(*self._agreement.shares())
            self._stop_for((state.reason or "it was stopped") if state.stopped else None)

    def _stop_for(self, why: str | None) -> None:
        if why is not None and why != self.stopped:
            mend = "`headrace labeller --resume` lets it go on"
            event("labeller.does_not_ask", level="error", labeller=self._settings.name, why=why, mend=mend)
        self.stopped = why
        self._metrics.stopped(stopped=why is not None)

    async def _ask_on(self) -> None:
        while True:
            waits = self.stopped is not None or self.ending or self._clock.monotonic() < self._not_before_s
            # Erasures and labels of people come before the next question, however many there are.
            all_seen = await self._known.look(POLL_S if waits or not len(self._waiting) else 0.0)
            if not all_seen:
                continue
            await self._look_at_rules()
            await self._review_labelled()
            if waits or not len(self._waiting):
                continue
            await self._account.look()
            if (batch := await self._next_batch()) and (affordable := self._affordable(batch)):
                await self._ask(*affordable)

    async def _look_at_rules(self) -> None:
        await patiently(self._models.look, doing="reading the rules of labels", clock=self._clock)
        self._known.rules = self._models.rules_of(self._model)

    async def _review_labelled(self) -> None:
        """Review waiting requests whose texts people labelled, also while the teacher is not asked."""
        if self._swept == (now := (self._waiting.came, self._known.told, self._known.rules)):
            return
        self._swept = now
        known = self._known
        found = self._waiting.take_where(lambda one: one.abstained and known.people_say(one.words) is not None)
        await self._reviews.publish(
            [Due(one, label) for one in found if (label := known.people_say(one.words)) is not None]
        )
        self._leave("known", *found)

    async def end_call(self) -> None:
        """Write that the call that is under way ends with this process, and that none of its texts is to blame."""
        if self._reservation is not None:
            await self._account.give_up(self._reservation)

    async def _next_batch(self) -> list[Chosen]:
        """The texts to ask about next: each once, none that needs no label, and one that may kill by itself."""
        batch: dict[str, Chosen] = {}
        again: list[Chosen] = []
        reviews: list[Due] = []
        deadly: list[Chosen] = []
        most = min(self._settings.batch, max(1, self._teacher.batch))
        while len(batch) < most and len(self._waiting) and not self._may_kill(batch.values()):
            for chosen in self._waiting.take(most - len(batch)):
                key = text_key(chosen.text)
                if (key in batch and chosen.abstained) or (batch and self._may_kill([chosen, *batch.values()])):
                    # Its review can be made once the text is labelled; or its turn comes alone.
                    again.append(chosen)
                elif key in batch or self._known.needs_none(chosen.text):
                    if chosen.abstained and (said := self._known.said(chosen.text)) is not None:
                        reviews.append(Due(chosen, *said, self._teacher.identity.version))
                    else:
                        self._leave("known", chosen)
                elif len(msgspec.json.encode(chosen.text)) > MOST_TEXT_BYTES:
                    self._leave("too-long", chosen)
                elif self._account.deaths(chosen.text) >= MOST_DEATHS:
                    deadly.append(chosen)
                else:
                    batch[key] = chosen
        for chosen in again:
            self._waiting.put(chosen)
        await self._reviews.publish(reviews)
        self._leave("known", *(due.chosen for due in reviews))
        if deadly:
            await self._leave_for_good(deadly, f"{KILLS}: {MOST_DEATHS} labellers ended in calls with this text")
        return list(batch.values())

    def _may_kill(self, some: Iterable[Chosen]) -> bool:
        """Whether a labeller or the teacher died over one of these."""
        return any(chosen.alone or self._account.deaths(chosen.text) for chosen in some)

    def _leave(self, why: str, *left: Chosen) -> None:
        self._metrics.left(why, len(left))
        for chosen in left:
            self._waiting.done(chosen)

    async def _leave_for_good(self, left: Sequence[Chosen], why: str) -> None:
        """Drop texts that kill, and record that the teacher failed on them, so that no such teacher is asked again."""
        labels = [
            MachineLabel(
                text=chosen.text,
                teacher=self._teacher.identity.version,
                labelled_at_ms=self._clock.now_ms(),
                prompt=self._teacher.identity.prompt,
                reason=why,
                source=self._source(chosen),
            )
            for chosen in left
        ]
        await self._publish_labels(labels)
        self._leave(KILLS, *left)
        where = ", ".join(map(self._source, left))
        event("teacher.text_kills", level="error", teacher=self._teacher.identity.teacher, where=where, why=why)

    def _source(self, chosen: Chosen) -> str:
        return f"{self._topics.requests}/{chosen.partition}@{chosen.offset}"

    async def _publish_labels(self, labels: Sequence[MachineLabel]) -> None:
        if labels:
            await self._sender.send_many(
                self._topics.machine_labels, [Outgoing(written(label), machine_labels_key(label)) for label in labels]
            )
        for label in labels:
            self._known.take(label)

    def _affordable(self, batch: Sequence[Chosen]) -> tuple[Sequence[Chosen], Sequence[GoldText], Amount] | None:
        """As much of ``batch`` as the budget has room for, the gold texts that go with it, and the most it may cost.

        The rest goes on waiting; None if there is no room at all.
        """
        due = self._owed + len(batch) * self._settings.gold
        # A text that is asked about alone has no gold text beside it either: if the call kills, the culprit is known.
        gold = [] if self._may_kill(batch) else self._gold.draw(int(due), self._teacher.labels, self._barred)
        part, why = batch, None
        while part:
            share = self._owed + len(part) * self._settings.gold
            with_it = gold[: int(share)]
            texts = [chosen.text for chosen in part] + [one.text for one in with_it]
            within = Amount(len(texts), self._teacher.within(texts).cost)
            why = self._account.refused(within)
            if why is None:
                break
            part = part[: len(part) // 2]
        for chosen in batch[len(part) :]:
            self._waiting.put(chosen)
        self._metrics.exhausted(exhausted=not part)
        if part:
            self._reminder.done()
            self._owed = share - int(share)
            return part, with_it, within
        if self._reminder.due("budget", self._clock.monotonic()):
            event("labeller.budget", level="warning", labeller=self._settings.name, why=why)
        now_ms = self._clock.now_ms()
        self._wait(min(EXHAUSTED_LOOK_S, (next_day_ms(now_ms) - now_ms) / 1000))
        return None

    def _barred(self, text: str) -> bool:
        """Whether ``text`` must not be used as a gold text."""
        return self._known.barred(text) or self._account.deaths(text) > 0

    def _wait(self, seconds: float) -> None:
        self._not_before_s = self._clock.monotonic() + seconds

    async def _ask(self, batch: Sequence[Chosen], gold: Sequence[GoldText], within: Amount) -> None:
        texts = [chosen.text for chosen in batch] + [one.text for one in gold]
        self.calling = True
        try:
            named = [chosen.text for chosen in batch] + [one.of for one in gold]
            self._reservation = reservation = await self._account.reserve(within, named)
            self._confirm()
            try:
                with self._spans.process((one.trace for one in batch), len(batch)) as span:
                    span.set({"headrace.teacher": self._teacher.identity.version})
                    async with asyncio.timeout(self._settings.longest_call):
                        given = await self._teacher.label(texts)
            except TeacherError as error:
                # Nothing was labelled or paid for: an endpoint that is away does not use the budget up.
                await self._account.settle(reservation, Amount())
                await self._fail(batch, words_of(error), deadly=isinstance(error, TeacherDiedError))
                return
            except TimeoutError:
                # It may be charged, so what was reserved counts as spent.
                await self._account.give_up(reservation)
                why = f"no answer within {self._settings.longest_call:g} s (labeller.longest_call)"
                await self._fail(batch, why)
                return
            passing = {place for place, failure in given.failures.items() if failure.passing}
            done = [place for place in range(len(batch)) if place not in passing]
            await self._publish([(batch[place], place) for place in done], given)
            await self._account.settle(reservation, Amount(len(texts) - len(passing), given.spent.cost))
            await self._take_up(batch, given, passing)
            await self._judge(gold, given, len(batch))
        finally:
            self.calling, self._reservation = False, None

    async def _take_up(self, batch: Sequence[Chosen], given: SoftLabels, passing: Collection[int]) -> None:
        """Decide which texts are asked about again, after which pause, and which are dropped."""
        answered = len(passing) < len(given.scores)
        if answered:
            self._metrics.teacher(up=True)
            self._pause_s = FIRST_PAUSE_S
        again = [chosen for place, chosen in enumerate(batch) if place in passing]
        if again:
            failure = given.failures[min(passing)]
            told = max(given.failures[place].wait_s for place in passing)
            why = f"{failure.code}: {failure.message}"
            await self._fail(again, why, told, up=answered, deadly=any(given.failures[p].deadly for p in passing))

    async def _fail(
        self, batch: Sequence[Chosen], why: str, told_s: float = 0.0, *, up: bool = False, deadly: bool = False
    ) -> None:
        """Ask about ``batch`` again after a pause, which doubles while nothing is answered, up to so many tries.

        After a call over which the teacher died, each text alone.
        """
        self._metrics.teacher(up=up)
        tried = max(chosen.tried for chosen in batch) + 1
        pause_s = max(told_s, self._pause_s)
        event(
            "teacher.failed",
            level="warning",
            teacher=self._teacher.identity.teacher,
            asked=len(batch),
            tried=tried,
            wait_s=round(pause_s, 1),
            why=why,
        )
        self._wait(pause_s)
        self._pause_s = min(2 * self._pause_s, self._settings.longest_wait)
        left: list[Chosen] = []
        for chosen in batch:
            if chosen.tried + 1 < self._settings.tries:
                self._waiting.put(msgspec.structs.replace(chosen, tried=chosen.tried + 1, alone=chosen.alone or deadly))
            elif deadly and not chosen.alone:
                # The text that killed it may be any of these.
                self._waiting.put(msgspec.structs.replace(chosen, alone=True))
            else:
                left.append(chosen)
        if not left:
            return
        if deadly:
            await self._leave_for_good(left, f"{KILLS}: {why}")
            return
        self._leave("teacher", *left)
        event("teacher.texts_left", level="warning", left=len(left), tries=self._settings.tries)

    async def _publish(self, answered: Sequence[tuple[Chosen, int]], given: SoftLabels) -> None:
        """Publish the labels of what was ``answered``, each with its place in the call, and then the reviews."""
        now_ms = self._clock.now_ms()
        labels = [
            machine_label(
                chosen.text,
                given,
                place,
                self._teacher,
                now_ms=now_ms,
                cost=given.spent.cost / max(1, len(given.scores) - sum(one.passing for one in given.failures.values())),
                source=self._source(chosen),
            )
            for chosen, place in answered
        ]
        await self._publish_labels(labels)
        # A person may have reviewed one meanwhile.
        await self._known.look(0.0)
        both = [(chosen, label) for (chosen, _), label in zip(answered, labels, strict=True)]
        await self._reviews.publish(
            [
                Due(chosen, label.label, label.scores[0].score, label.teacher)
                for chosen, label in both
                if label.label is not None and chosen.abstained
            ]
        )
        for chosen, label in both:
            if label.label is None:
                self._metrics.left("failed")
            self._waiting.done(chosen)
        labelled = sum(label.label is not None for label in labels)
        self._metrics.labelled(labelled, given.spent.cost)

    async def _judge(self, gold: Sequence[GoldText], given: SoftLabels, first: int) -> None:
        """Count how the teacher did on gold texts, which stand behind the ``first`` texts of the call."""
        if not gold:
            return
        for place, one in enumerate(gold, first):
            label = None if place in given.failures else self._teacher.labels[int(given.scores[place].argmax())]
            self._agreement.add(one, label)
        self._metrics.agreement(*self._agreement.shares())
        why = self._agreement.broken(self._settings)
        # Also while all is well, so that a successor goes on counting.
        await self._write_state(stopped=why is not None, reason=why)
        if why is not None:
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


def written(label: MachineLabel) -> bytes:
    """``label`` as a record that the topic takes; of thousands of classes the lowest scores are left out."""
    value = encode_machine_label(label)
    while len(value) > MOST_RECORD_BYTES and len(label.scores) > 1:
        label = msgspec.structs.replace(label, scores=label.scores[: len(label.scores) // 2])
        value = encode_machine_label(label)
    return value
