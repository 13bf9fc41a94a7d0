"""`headrace demo --learning`: labels become versions, and workers swap to them under a running stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import takewhile
from pathlib import Path
from random import Random

from rich.console import Console
from rich.markup import escape

from headrace import client
from headrace.client.labels import publish_labels
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.demo.screen import audit, keep_shown, view
from headrace.demo.setup import (
    Broker,
    Order,
    beside,
    child_environment,
    create_topics,
    kafka_for,
    prefix_for,
    ready,
    workers,
)
from headrace.demo.stream import Ledger, Snapshot, all_answered, follow, publish_steadily, read_answers
from headrace.demo.texts import endless_paragraphs
from headrace.demo.versions import (
    CHAMPION,
    EPOCHS,
    Keyed,
    Made,
    Observed,
    by_hand,
    erasure,
    in_order,
    in_two_parts,
    learning_settings,
    made_by,
    made_lines,
    order_of_versions,
    quotes,
    swap,
    swaps_table,
    to_forget,
    trainer,
    training_begun,
    whole_stream,
)
from headrace.kafka.aio import AioKafkaCluster
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.process.children import Child, ProgramError
from headrace.registry.compacted_topics import ModelsLog, Move, alias_moves
from headrace.registry.versions import load_version
from headrace.security.private_folder import temporary_folder

POLL_S = 0.05
SWAP_LIMIT_S = 60.0
NO_ANSWER_LIMIT_S = 30.0


class Loop:
    """The steps of the demo and their common state. ``folder`` gets the processes' logs. The caller starts and stops
    ``log``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        folder: Path,
        log: ModelsLog,
        console: Console,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._folder = folder
        self._log = log
        self._console = console
        self._clock = clock
        self._names = settings.topics.names()
        self._model = settings.worker.model_name
        self._cluster = AioKafkaCluster(settings.kafka)
        self.places = settings.places()
        self.observed = Observed(clock)
        self.ledger = Ledger(self.observed.note)
        self.swaps: list[tuple[str, Move]] = []
        """The moves of the alias that the workers have followed, each with its purpose."""

    async def learn(self, labels: Sequence[Keyed], what: str, erased: Sequence[Keyed] = ()) -> Made:
        """Publish ``labels`` and erase ``erased``. Returns the trainer's next version, promoted by hand if the gate
        does not.

        Raises TrainingEndedError.
        """
        before = self._log.trainings.get(self._model)
        await publish_labels(self._cluster, self._names.labels, labels=labels, erased=(one.id for one in erased))
        also = f", and {len(erased):,} erased by tombstones" if erased else ""
        self.say("Labels", f"{len(labels):,} published to {self._names.labels}: {escape(what)}{also}")
        training = await training_begun(self._log, self._model, None if before is None else before.id, self._clock)
        usual = ConvolutionRecipe().epochs
        self.say("Training", f"{training.reason}; at most {EPOCHS} epochs to keep it short, where {usual} are usual")
        made = await made_by(training, self._log, self._clock)
        for line in made_lines(made):
            self.say("", line)
        if not made.verdict.promoted:
            self.say("By hand", "an operator would look at `headrace models show` now, and promote it or not")
            await self.by_hand("promote", made.version.version)
        return made

    async def take_up(self, members: Child, number: int) -> None:
        """Wait until all ``number`` members answer by the first version. Raises ProgramError."""
        await ready(members, number, self._settings.topics.partitions, self._clock)
        self.say("Workers", f"{number} processes share {self._settings.topics.partitions} partitions and answer")

    @asynccontextmanager
    async def stream(self, texts: Sequence[str], rate: float, random: Random) -> AsyncIterator[Callable[[], Snapshot]]:
        """Publish paragraphs of ``texts`` while the block runs, read all their answers, and show the figures.

        It yields a function that returns the present figures of the stream.
        """
        stop, published = asyncio.Event(), asyncio.Event()
        paragraphs = takewhile(lambda _: not stop.is_set(), endless_paragraphs(texts, random))
        now = follow(self.ledger, seconds=None, clock=self._clock)

        async def publish_all() -> None:
            await publish_steadily(connection, self.ledger, paragraphs, rate=rate, clock=self._clock)
            published.set()

        self.say("Streaming", f"paragraphs of {len(texts):,} texts that no training sees, at {rate:,g}/s")
        kafka, names = self._settings.kafka, self._names
        async with (
            client.connect(kafka=kafka, requests=names.requests, results=names.results) as connection,
            connection.reader("earliest") as reader,
            beside(
                read_answers(reader, self.ledger, self._clock),
                keep_shown(self._console, lambda: view(now()), self._clock),
                publish_all(),
            ),
        ):
            yield now
            stop.set()
            await published.wait()
            await all_answered(self.ledger, NO_ANSWER_LIMIT_S, self._clock)

    async def swapped(self, what: str) -> None:
        """Wait until all partitions are answered by the champion. Raises ProgramError after SWAP_LIMIT_S."""
        await self._log.refresh()
        champion = self._log.aliases[self._model, CHAMPION]
        until = self._clock.monotonic() + SWAP_LIMIT_S
        while self.observed.answering(self._settings.topics.partitions) != frozenset((champion.version,)):
            if self._clock.monotonic() > until:
                raise ProgramError(f"The workers had not swapped to {champion.version} in {SWAP_LIMIT_S:g} s.")
            await self._clock.sleep(POLL_S)
        moves = await alias_moves(self._cluster, self._names.models, self._model)
        self.swaps.append((what, next(one for one in reversed(moves) if one.alias == champion)))
        self.say("Swapped", f"all partitions are answered by {champion.version}")

    async def by_hand(self, *command: str) -> None:
        """Run `headrace models` and show its output. Raises ProgramError when it fails."""
        printed = await by_hand(self._settings, *command, environ=self._environ, folder=self._folder)
        self.say("By hand", f"headrace models {' '.join(command)}: {printed}")

    def say(self, what: str, line: str) -> None:
        """Print ``line`` behind ``what``, which is bold and padded."""
        self._console.print(f"[bold]{what:<9}[/bold] {line}", soft_wrap=True)


MEMBERS = 2
FIRST_SHARE = 0.6


async def show(order: Order, *, console: Console, clock: Clock, random: Random) -> bool:
    """Run the demo. Returns whether the audit holds: every text was answered once and by the version whose turn it was,
    and nothing of the later version has the erased texts.

    Raises a UserError or KafkaError. Whatever it started has ended when it returns, raises or is cancelled.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder("headrace-demo-"))
        if order.kafka is None and order.broker is Broker.APACHE:
            console.print("Starting Apache Kafka, whose jars Maven fetches the first time", soft_wrap=True)
        kafka = await stack.enter_async_context(kafka_for(order.kafka, order.broker))
        prefix = prefix_for(random)
        broker = order.broker.value if order.kafka is None else "your cluster"
        # Topics that stay on a cluster name artifacts, so the artifacts stay too.
        store = folder / "store" if order.kafka is None else order.keep_in / f"{prefix}store"
        settings = learning_settings(kafka, prefix, store)
        await create_topics(settings)
        log = ModelsLog(AioKafkaCluster(kafka), settings.topics.names().models)
        stack.push_async_callback(log.stop)
        await log.start()
        environ = child_environment(order.environ, kafka, folder)
        loop = Loop(settings, environ=environ, folder=folder, log=log, console=console, clock=clock)
        loop.say("Kafka", f"at {kafka.bootstrap} ({broker}); topics {prefix}classify.*")

        teacher = await stack.enter_async_context(trainer(settings, environ=environ, folder=folder))
        members = await stack.enter_async_context(workers(settings, MEMBERS, environ=environ, folder=folder))
        first, rest = in_two_parts(order.texts.rows, FIRST_SHARE, random)
        async with beside(teacher.watch(), members.watch()):
            loop.say("Workers", f"{MEMBERS} processes of `headrace worker` wait for a first version")
            old = await loop.learn(first, f"{FIRST_SHARE:.0%} of {order.texts.name}")
            await loop.take_up(members, MEMBERS)
            erased = to_forget(first, rest, load_version(old.version, (), settings.places()))
            async with loop.stream(order.texts.held_out.texts, order.rate, random) as now:
                await clock.sleep(order.seconds)
                new = await loop.learn(rest, "the others", erased)
                await loop.swapped("2, trained")
                await clock.sleep(order.seconds)
                await loop.by_hand("rollback")
                await loop.swapped("1, rollback")
                await clock.sleep(order.seconds)
                await loop.by_hand("promote", new.version.version)
                await loop.swapped("2, promoted")
                await clock.sleep(order.seconds)
        if order.kafka is not None:
            loop.say("Kafka", f"the topics {prefix}classify.* stay there, and their artifacts in {store}")
        return _close(loop, now(), old, new, erased, console)


def _close(loop: Loop, end: Snapshot, old: Made, new: Made, erased: Sequence[Keyed], console: Console) -> bool:
    """Print the result. Returns whether it is as it should be."""
    champions = [old.version.version, *(move.alias.version for _, move in loop.swaps)]
    kept = in_order(loop.observed.runs.values(), champions)
    quoted, still = (quotes(load_version(made.version, (), loop.places), erased) for made in (old, new))
    left_out = 0 if new.version.lineage is None else new.version.lineage.dropped.get("erased", 0)
    console.print()
    console.print(swaps_table([(what, swap(loop.observed.waits, move)) for what, move in loop.swaps]))
    for line in (
        *whole_stream(end),
        erasure(len(erased), left_out, quoted, still),
        order_of_versions(kept=kept),
        audit(loop.ledger),
    ):
        console.print(line, soft_wrap=True)
    forgotten = still == 0 and left_out == len(erased)
    return kept and forgotten and not loop.ledger.waiting and not loop.ledger.repeated
