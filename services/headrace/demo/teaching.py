"""`headrace demo --teaching`: few labels of people, a teacher for the texts of the stream, and ever better versions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Never

import msgspec
from rich.console import Console
from rich.markup import escape

from headrace import client
from headrace.client.labels import labelled, publish_labels
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.core.spending import Amount, spent
from headrace.core.text import quantity
from headrace.demo.chat_server import ChatServer, chat_server, naive_bayes
from headrace.demo.labelling import (
    HOLDOUT,
    LABELS,
    Figures,
    fault_of,
    figures_at,
    labeller,
    labels_file,
    said,
    teaching_settings,
)
from headrace.demo.learning import Loop
from headrace.demo.screen import keep_shown
from headrace.demo.setup import Order, beside, child_environment, create_topics, kafka_for, prefix_for, workers
from headrace.demo.stream import Sent, Snapshot, all_answered, follow, publish_all, publish_steadily, read_answers
from headrace.demo.teaching_screen import Lesson, Shown, Taught, closing, view
from headrace.demo.texts import Division, divide, write_rows
from headrace.demo.versions import Made, made_by, trainer, training_begun
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Cluster
from headrace.kafka.range_reader import read_topic
from headrace.learning.data.files import Rows
from headrace.process.children import Child, ProgramError
from headrace.registry.compacted_topics import ModelsLog, TeachingLog
from headrace.security.private_folder import temporary_folder
from headrace_schemas.codec import decode_machine_label
from headrace_schemas.errors import WireError
from headrace_schemas.records import MachineLabel, Training

MEMBERS = 2
VERSIONS = 4
A_CLASS = 10
MOST_TEXTS = 2400
MOST_HELD_OUT = 400
MOST_APART = 300
ENOUGH = 0.5
"""After so many of a version's texts its training begins, because on a busy machine the teacher is slower than the
stream.
"""
SPARE = 1.4
"""How many texts more than there are may be asked about: gold texts and retries count too."""
START_LIMIT_S = 300.0
NO_ANSWER_LIMIT_S = 30.0
LOOK_S = 1.0
FETCH_WAIT_MS = 100
POLL_S = 0.05


class Stream:
    """The texts of the stream: new ones while they are let in, otherwise earlier ones again.

    While a version is trained no text is new, so that the next version learns from later texts.
    """

    def __init__(self, texts: Rows, random: Random) -> None:
        self._texts = texts.texts
        self._random = random
        self._let_in = 0
        self._given = 0
        self._stopped = False

    def let_in(self, more: int) -> None:
        self._let_in = min(self._let_in + more, len(self._texts))

    def stop(self) -> None:
        self._stopped = True

    def __iter__(self) -> Iterator[str]:
        while not self._stopped:
            if self._given < self._let_in:
                self._given += 1
                yield self._texts[self._given - 1]
            else:
                yield self._random.choice(self._texts[: max(1, self._given)])


class Course:
    """The state of the demo while it runs, for the screen."""

    def __init__(self, settings: Settings, people: int, cluster: Cluster, now: Callable[[], Snapshot]) -> None:
        self._settings = settings
        self._people = people
        self._log = TeachingLog(cluster, settings.topics.names().teaching)
        self._now = now
        self.doing = "the programs start"
        self.versions: list[Shown] = []
        self.teacher = "the teacher"
        self.labeller = Figures()
        self.spent = Amount()

    def lesson(self) -> Lesson:
        """The present moment."""
        return Lesson(
            doing=self.doing,
            versions=tuple(self.versions),
            people=self._people,
            teacher=self.teacher,
            labeller=self.labeller,
            spent=self.spent,
            budget=self._settings.labeller.budget(),
            stream=self._now(),
        )

    async def follow(self, labeller: Child, clock: Clock) -> Never:
        """Watch the labeller and its spending until cancelled. Raises ProgramError when it has stopped asking."""
        await self._log.start()
        try:
            while True:
                await self.look(labeller)
                await clock.sleep(LOOK_S)
        finally:
            await self._log.stop()

    async def look(self, labeller: Child) -> None:
        """Update the state. Raises ProgramError when the labeller has stopped asking."""
        told = said(labeller.printed())
        if told.stopped is not None:
            raise labeller.error(f"The labeller asks no more: {told.stopped}.")
        self.teacher = told.teacher or self.teacher
        if told.port is not None:
            self.labeller = await figures_at(told.port)
        await self._log.refresh()
        self.spent = spent(self._log.spendings.values(), self._settings.labeller.name, "")


async def show(order: Order, *, console: Console, clock: Clock, random: Random, endpoint: bool = False) -> bool:
    """Run the demo and return whether the audit holds: every request was answered once.

    With ``endpoint`` a local server stands in for a language model. Raises a UserError or KafkaError. Whatever it
    started has ended when it returns, raises or is cancelled.
    """
    division = divide(
        order.texts,
        a_class=A_CLASS,
        most=MOST_TEXTS,
        most_held_out=MOST_HELD_OUT,
        apart=min(MOST_APART, len(order.texts.rows) // 5) if endpoint else 0,
        random=random,
    )
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder("headrace-demo-"))
        kafka = await stack.enter_async_context(kafka_for(order.kafka, order.broker))
        if order.kafka is None:
            # There are many more readers than in the other demos, and each waiting fetch costs the embedded broker
            # work.
            kafka = msgspec.structs.replace(kafka, fetch_max_wait_ms=FETCH_WAIT_MS)
        prefix = prefix_for(random)
        # The topics that stay on a cluster name the artifacts, so these stay too.
        store = folder / "store" if order.kafka is None else order.keep_in / f"{prefix}store"
        server = ChatServer(naive_bayes(division.apart.texts, division.apart.labels), faults=fault_of)
        portion = -(-len(division.unlabelled) // (VERSIONS - 1))
        settings = teaching_settings(
            kafka,
            prefix,
            folder,
            store=store,
            day_texts=round(SPARE * (len(division.unlabelled) + len(division.held_out))),
            new_machine_labels=max(1, round(ENOUGH * portion)),
            endpoint=stack.enter_context(chat_server(server)) if endpoint else None,
        )
        write_rows(division.held_out, folder / HOLDOUT)
        (folder / LABELS).write_text(labels_file(sorted(set(division.people.labels))), encoding="utf-8")
        await create_topics(settings)
        cluster = AioKafkaCluster(kafka)
        log = ModelsLog(cluster, settings.topics.names().models)
        stack.push_async_callback(log.stop)
        await log.start()
        environ = child_environment(order.environ, kafka, folder)
        loop = Loop(settings, environ=environ, folder=folder, log=log, console=console, clock=clock)
        lesson = _Demo(
            order, settings, division, portion=portion, loop=loop, log=log, console=console, clock=clock, random=random
        )
        broker = order.broker.value if order.kafka is None else "your cluster"
        lesson.say("Kafka", f"at {kafka.bootstrap} ({broker}); topics {prefix}classify.*")
        lesson.introduce("a local endpoint" if endpoint else "MiniLM, an encoder of 22 M weights")
        end = await lesson.run(environ, folder)
        taught = await _taught(cluster, settings.topics.names().machine_labels, division)
        if endpoint:
            lesson.say("Endpoint", _calls(server))
        console.print("\n[bold]What this showed[/bold]")
        for line in closing(end, taught, loop.ledger):
            # A terminal is told in whole words, a program in whole lines.
            console.print(line, soft_wrap=not console.is_terminal, markup=False)
        if order.kafka is not None:
            lesson.say("Kafka", f"the topics {prefix}classify.* stay there, and their artifacts in {store}")
        return not loop.ledger.waiting and not loop.ledger.repeated


class _Demo:
    """One run over existing topics."""

    def __init__(
        self,
        order: Order,
        settings: Settings,
        division: Division,
        *,
        portion: int,
        loop: Loop,
        log: ModelsLog,
        console: Console,
        clock: Clock,
        random: Random,
    ) -> None:
        self._order = order
        self._settings = settings
        self._division = division
        self._portion = portion
        self._loop = loop
        self._log = log
        self._cluster = AioKafkaCluster(settings.kafka)
        self._console = console
        self._clock = clock
        self._stream = Stream(division.unlabelled, random)
        self._course = Course(
            settings, len(division.people), self._cluster, follow(loop.ledger, seconds=None, clock=clock)
        )

    def say(self, what: str, line: str) -> None:
        """Print ``line`` behind ``what``: wrapped between words on a terminal, in one line elsewhere."""
        self._console.print(f"[bold]{what:<9}[/bold] {escape(line)}", soft_wrap=not self._console.is_terminal)

    def introduce(self, teacher: str) -> None:
        """Print the participants and their texts."""
        of = self._division
        self.say("People", f"labelled {len(of.people):,} texts of {self._order.texts.name}, {A_CLASS} of each class")
        self.say("Stream", f"{len(of.unlabelled):,} texts without a label, at {self._order.rate:,g}/s")
        self.say("Teacher", f"{teacher}, asked by `headrace labeller` beside the answers")
        self.say("Held out", f"{len(of.held_out):,} texts that no version learns from; the gate decides by them")

    async def run(self, environ: dict[str, str], folder: Path) -> Lesson:
        """Make the versions under the stream. Returns the state at the end. Raises a UserError or KafkaError."""
        settings, names = self._settings, self._settings.topics.names()
        await publish_labels(self._cluster, names.labels, labels=labelled(self._division.people))
        async with AsyncExitStack() as stack:
            learner = await stack.enter_async_context(trainer(settings, environ=environ, folder=folder))
            members = await stack.enter_async_context(workers(settings, MEMBERS, environ=environ, folder=folder))
            asker = await stack.enter_async_context(labeller(settings, environ=environ, folder=folder))
            async with beside(
                learner.watch(),
                members.watch(),
                asker.watch(),
                self._course.follow(asker, self._clock),
                keep_shown(self._console, lambda: view(self._course.lesson()), self._clock),
            ):
                first = await self._trained(None)
                self._course.doing = "workers and teacher are made ready"
                await self._loop.take_up(members, MEMBERS)
                await self._asking(asker)
                connection = await stack.enter_async_context(
                    client.connect(kafka=settings.kafka, requests=names.requests, results=names.results)
                )
                reader = await stack.enter_async_context(connection.reader("earliest"))
                async with beside(read_answers(reader, self._loop.ledger, self._clock)):
                    await self._teach(first, connection)
                    await all_answered(self._loop.ledger, NO_ANSWER_LIMIT_S, self._clock)
                    await self._course.look(asker)
                    self._course.doing = "all is done"
                    return self._course.lesson()

    async def _teach(self, made: Made, connection: client.Client) -> None:
        ledger, clock, published = self._loop.ledger, self._clock, asyncio.Event()

        async def publish() -> None:
            await publish_steadily(connection, ledger, iter(self._stream), rate=self._order.rate, clock=clock)
            published.set()

        self._stream.let_in(self._portion)
        async with beside(publish()):
            await self._score(made, connection)
            for number in range(2, VERSIONS + 1):
                made = await self._trained(made.training)
                await self._loop.swapped(f"{number}")
                await self._score(made, connection)
            self._stream.stop()
            await published.wait()

    async def _trained(self, before: Training | None) -> Made:
        """Wait for the next version, and promote it by hand if the gate does not."""
        number = len(self._course.versions) + 1
        self._course.doing = f"labels for version {number} come in" if before else "version 1 is learning"
        training = await training_begun(
            self._log, self._settings.worker.model_name, None if before is None else before.id, self._clock
        )
        self._course.doing = f"version {number} is learning"
        # Texts that come meanwhile are for the version after it.
        self._stream.let_in(self._portion if before else 0)
        made = await made_by(training, self._log, self._clock)
        if not made.verdict.promoted:
            self.say("Gate", f"version {number} not promoted: {made.verdict.reason}")
            await self._loop.by_hand("promote", made.version.version)
        self._course.doing = f"the workers swap to version {number}"
        return made

    async def _asking(self, asker: Child) -> None:
        """Wait until the labeller asks. Raises ProgramError after START_LIMIT_S."""
        until = self._clock.monotonic() + START_LIMIT_S
        while not self._course.labeller.asks:
            if self._clock.monotonic() > until:
                raise asker.error(f"The labeller was not ready in {START_LIMIT_S:g} s.")
            await self._clock.sleep(POLL_S)
        if evidence := said(asker.printed()).evidence:
            self.say("Teacher", evidence.removeprefix("teacher "))

    async def _score(self, made: Made, connection: client.Client) -> None:
        """Let the workers answer the held-out texts by the version, which all of them have now."""
        version, held_out = made.version.version, self._division.held_out
        texts = [Sent(text, truth=label) for text, label in zip(held_out.texts, held_out.labels, strict=True)]
        observed = self._loop.observed
        await publish_all(connection, self._loop.ledger, texts)
        until = self._clock.monotonic() + NO_ANSWER_LIMIT_S
        while observed.scored[version] < len(texts):
            if self._clock.monotonic() > until:
                raise ProgramError(
                    f"Of {len(texts):,} held-out texts {observed.scored[version]:,} were answered by {version} in "
                    f"{NO_ANSWER_LIMIT_S:g} s."
                )
            await self._clock.sleep(POLL_S)
        lineage = made.version.lineage
        one = Shown(
            people=0 if lineage is None else lineage.rows,
            teacher=0 if lineage is None else lineage.machine_rows,
            scored=observed.scored[version],
            right=observed.right[version],
            by="by the gate" if made.verdict.promoted else "by hand",
        )
        self._course.versions.append(one)
        if not self._console.is_terminal:
            self.say(
                f"Version {len(self._course.versions)}",
                f"of {quantity(one.people, 'label')} of people and {one.teacher:,} of the teacher: {one.accuracy:.1%} "
                f"of the held-out texts right, promoted {one.by}",
            )


async def _taught(cluster: Cluster, topic: str, division: Division) -> Taught:
    """How often the labels on ``topic`` are right."""
    said: dict[str, str] = {}
    async for record in read_topic(cluster, topic, "labels"):
        try:
            label = decode_machine_label(record.value)
        except WireError:
            continue
        if isinstance(label, MachineLabel) and label.label is not None:
            said[label.text] = label.label

    def counted(rows: Rows) -> tuple[int, int]:
        pairs = [(said[text], label) for text, label in zip(rows.texts, rows.labels, strict=True) if text in said]
        return len(pairs), sum(given == true for given, true in pairs)

    texts, right = counted(division.unlabelled)
    held_out, held_out_right = counted(division.held_out)
    return Taught(texts=texts, right=right, held_out=held_out, held_out_right=held_out_right)


def _calls(server: ChatServer) -> str:
    """What the endpoint was asked, and which faults it had."""
    faults = Counter(fault for number in range(len(server.calls)) if (fault := fault_of(number)) is not None)
    named = ", ".join(f"{count:,} {fault}" for fault, count in sorted(faults.items()))
    return f"was called {len(server.calls):,} times; faults among them: {named or 'none'}"
