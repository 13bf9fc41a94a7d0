"""Leadership: what the trainer that was elected (``kafka/election.py``) does while it leads.

A leader reads the labels from the topic's beginning, goes on with an unfinished training, and from then on lets the
rules decide. One training runs at a time; labels are read on meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from headrace.core.clock import Clock
from headrace.core.training_rules import Facts, Limits, awaited, reason_to_train
from headrace.kafka.retry import patiently
from headrace.process.logs import Reminder, event
from headrace.registry.compacted_topics import ModelsLog
from headrace.registry.versions import floor_of
from headrace.trainer.certificate import CascadeWatch
from headrace.trainer.drift import DriftWatch
from headrace.trainer.labels import LabelsReader
from headrace.trainer.machine_labels import MachineLabelsReader
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.training_run import CHAMPION, Conductor
from headrace_schemas.records import OffsetRange, Training, TrainingOrder, TrainingState

LOOK_S = 0.5
COUNT_S = 30.0
ONCE = "once, by hand"
CLOCKS_APART_MS = 24 * 3600 * 1000
"""How far the clock of whoever gives an order may be ahead."""

T = TypeVar("T")

MakeReader = Callable[[tuple[OffsetRange, ...]], Awaitable[LabelsReader]]
"""A reader of the labels, to which what lies behind these ranges is new."""

MakeMachineReader = Callable[[tuple[OffsetRange, ...]], Awaitable[MachineLabelsReader]]
"""The same of teachers' labels."""


class Term:
    """One term. ``drift`` is None where no rule asks for it, and ``cascade`` where no certificate can be watched."""

    def __init__(
        self,
        *,
        name: str,
        log: ModelsLog,
        make_reader: MakeReader,
        make_machine_reader: MakeMachineReader,
        drift: DriftWatch | None,
        conductor: Conductor,
        limits: Limits,
        clock: Clock,
        metrics: TrainerMetrics,
        cascade: CascadeWatch | None = None,
        trusted: Collection[str] = (),
    ) -> None:
        self._cascade = cascade
        self._trusted = trusted
        self._name = name
        self._log = log
        self._make_reader = make_reader
        self._make_machine_reader = make_machine_reader
        self._drift = drift
        self._conductor = conductor
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._reminder = Reminder()
        self._said = ""
        """What was said last of what the next training waits for."""
        self._unmixed: str | None = None
        """What was said last of why no teacher is learnt from."""
        self._counted_s: float | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._training: asyncio.Task[Training] | None = None
        self._anew: str | None = None
        """Why a training begins whatever the rules say: it takes the place of one that was not gone on with."""
        self._absurd: TrainingOrder | None = None
        """The order from the far future of which was said that it is not answered."""
        self.read = False
        """Whether all labels were read."""

    async def run(self, *, once: bool = False) -> Training | None:
        """Lead until cancelled, which ends a running training's ranks too.

        With ``once`` go on with the unfinished training, or train now, and return how it ended; None without labels.
        Raises NotLeadingError, OffsetOutOfRangeError when retention overtook the reading of labels, and KafkaErrors
        that can't be mended here.
        """
        await self._patiently(self._log.refresh, "reading the models topic")
        last = self._log.trainings.get(self._name)
        reader = await self._make_reader(() if last is None else last.offsets)
        try:
            machine = await self._make_machine_reader(() if last is None else last.machine_offsets)
        except BaseException:
            await reader.stop()
            raise
        try:
            watches = [watch for watch in (self._drift, self._cascade) if watch is not None]
            self._watching = [asyncio.create_task(watch.run()) for watch in watches]
            await self._patiently(reader.start, "reading the labels")
            await self._patiently(machine.catch_up, "reading the labels of teachers")
            self.read = True
            event("labels.read", model=self._name, usable=reader.known.usable, new=reader.known.new)
            if last is not None and last.state is TrainingState.RUNNING:
                await self._go_on_with(last, reader, machine)
            while True:
                await self._look(reader, machine)
                if reader.known.rules != self._log.rules_of(self._name):
                    await reader.stop()
                    reader = await self._read_anew()
                    await machine.stop()
                    machine = await self._read_machine_anew()
                ended = self._collect()
                if once and ended is not None:
                    return ended
                if once and self._training is None and not self._there(reader, machine):
                    event("labels.none", level="warning", model=self._name)
                    return None
                if self._training is None and (stray := self._log.trainings.get(self._name)) is not None:
                    await self._conductor.disown(stray)
                if self._training is None:
                    self._training = await self._begin(reader, machine, once=once)
        finally:
            running = [*self._watching, *(() if self._training is None else (self._training,))]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await machine.stop()
            await reader.stop()

    async def _read_anew(self) -> LabelsReader:
        """A reader of all labels by the rules of now: what is known by others can't be told apart any more."""
        last = self._log.trainings.get(self._name)
        reader = await self._make_reader(() if last is None else last.offsets)
        await self._patiently(reader.start, "reading the labels")
        event("labels.ruled", model=self._name, rules=len(reader.known.rules), usable=reader.known.usable)
        return reader

    async def _read_machine_anew(self) -> MachineLabelsReader:
        last = self._log.trainings.get(self._name)
        machine = await self._make_machine_reader(() if last is None else last.machine_offsets)
        await self._patiently(machine.catch_up, "reading the labels of teachers")
        return machine

    @staticmethod
    def _there(reader: LabelsReader, machine: MachineLabelsReader) -> bool:
        """Whether there is anything to train on."""
        return bool(reader.known.usable or machine.teachers.weights)

    async def _go_on_with(self, last: Training, reader: LabelsReader, machine: MachineLabelsReader) -> None:
        """Go on with the training that was found running; one that may not be gone on with is begun anew."""
        job = await self._conductor.job_to_go_on_with(last, erased=reader.erased or machine.erased)
        if isinstance(job, str):
            await self._conductor.abandon(last, job)
            self._anew = f"training {last.id} was not gone on with"
            return
        event("training.resumed", model=self._name, training=last.id)
        self._training = asyncio.create_task(self._conductor.conduct(last, job))

    async def _look(self, reader: LabelsReader, machine: MachineLabelsReader) -> None:
        """Read labels for a while, then look at what the models topic says."""
        end = self._clock.monotonic() + LOOK_S
        while (left := end - self._clock.monotonic()) > 0:
            await self._patiently(functools.partial(reader.read, left), "reading the labels")
        await machine.look()
        self._tell_of_teachers(reader, machine)
        await self._patiently(self._log.refresh, "reading the models topic")
        if self._drift is not None:
            self._drift.follow(self._log.resolve(self._name, CHAMPION))
        if self._cascade is not None:
            await self._watch_certificate(self._cascade)

    def _tell_of_teachers(self, reader: LabelsReader, machine: MachineLabelsReader) -> None:
        """Say why no teacher is learnt from, when that has changed; and count now and then who contradicts people."""
        why = machine.teachers.why
        if why is not None and why != self._unmixed and self._reminder.due("teachers", self._clock.monotonic()):
            event("machine_labels.unused", level="warning", model=self._name, why=why)
            self._unmixed = why
        now_s = self._clock.monotonic()
        if self._counted_s is None or now_s - self._counted_s >= COUNT_S:
            self._counted_s = now_s
            self._metrics.disagreements(machine.disagreements(reader.known))

    async def _watch_certificate(self, cascade: CascadeWatch) -> None:
        champion = self._log.resolve(self._name, CHAMPION)
        certificate = None if champion is None else self._log.certificates.get((self._name, champion.version))
        floor = 0.0 if champion is None else floor_of(self._log, champion, self._trusted).score
        cascade.follow(champion, certificate, floor, self._log.rules_of(self._name))
        if cascade.broken is not None:
            risen, cascade.broken = cascade.broken, None
            await self._conductor.raise_threshold(risen)

    def _collect(self) -> Training | None:
        """The training that has just ended. Raises what ended it, or the following of answers, for good."""
        for watching in self._watching:
            if watching.done():
                watching.result()
        if self._training is None or not self._training.done():
            return None
        ended, self._training = self._training.result(), None
        return ended

    async def _begin(
        self, reader: LabelsReader, machine: MachineLabelsReader, *, once: bool
    ) -> asyncio.Task[Training] | None:
        """Begin a training when there is a reason to."""
        order = self._order()
        anew = self._anew if self._there(reader, machine) else None
        facts = self._facts(reader, machine, order)
        reason = ONCE if once else anew or reason_to_train(facts, self._limits)
        if reason is None:
            self._say_awaited(facts)
            return None
        self._anew = None
        self._metrics.missing(0)
        self._reminder.done()
        # What was published before an order was given belongs to the training that answers it.
        await self._patiently(reader.catch_up, "reading the labels")
        await self._patiently(machine.catch_up, "reading the labels of teachers")
        teachers = machine.teachers
        offsets = await self._patiently(reader.freeze, "asking for the first offsets")
        machine_offsets = await self._patiently(machine.freeze, "asking for the first offsets")
        self._metrics.disagreements(machine.disagreements(reader.known))
        training = await self._conductor.begin(
            reason if teachers.why is None else f"{reason}; without labels of teachers: {teachers.why}",
            offsets,
            machine_offsets=machine_offsets,
            not_before_ms=0 if order is None else order.ordered_at_ms,
        )
        source = machine.source(teachers, machine_offsets)
        return asyncio.create_task(self._conductor.conduct(training, machine=source))

    def _say_awaited(self, facts: Facts) -> None:
        """Say what the next training waits for: at once, and when that has changed, ever more rarely."""
        what = awaited(facts, self._limits)
        self._metrics.missing(what.missing)
        if what.why == self._said or not self._reminder.due(what.rule, self._clock.monotonic()):
            return
        self._said = what.why
        level = "warning" if what.stuck and not self._reminder.again else "info"
        event("training.awaited", level=level, model=self._name, missing=what.missing, why=what.why)

    def _order(self) -> TrainingOrder | None:
        """The order that no training has answered yet."""
        order, last = self._log.orders.get(self._name), self._log.trainings.get(self._name)
        if order is None or (last is not None and last.begun_at_ms >= order.ordered_at_ms):
            return None
        if order.ordered_at_ms - self._clock.now_ms() > CLOCKS_APART_MS:
            # The training that answers it takes its time, and versions are named and sorted by that.
            if order != self._absurd:
                self._absurd = order
                event("order.refused", level="warning", model=self._name, ordered_at_ms=order.ordered_at_ms)
            return None
        return order

    def _facts(self, reader: LabelsReader, machine: MachineLabelsReader, order: TrainingOrder | None) -> Facts:
        teachers = machine.teachers
        now_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        last = self._log.trainings.get(self._name)
        failed = last is not None and last.state is TrainingState.FAILED
        drift = None if self._drift is None else self._drift.measure()
        return Facts(
            rows=reader.known.usable,
            new=reader.known.new,
            erased=reader.known.erased,
            trained=last is not None,
            age_s=0.0 if last is None else (now_ms - last.begun_at_ms) / 1000,
            quiet_s=now_s - reader.changed_s,
            waiting_s=0.0 if reader.waiting_s is None else now_s - reader.waiting_s,
            drift=None if drift is None else max(drift.labels, drift.confidence),
            order=None if order is None else order.reason,
            failed_s=(now_ms - (last.ended_at_ms or last.begun_at_ms)) / 1000 if failed and last else None,
            machine=machine.usable(teachers),
            new_machine=machine.new(teachers),
        )

    async def _patiently(self, call: Callable[[], Awaitable[T]], doing: str) -> T:
        return await patiently(call, doing=doing, clock=self._clock)
