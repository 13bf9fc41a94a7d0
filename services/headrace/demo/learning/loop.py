"""The steps of the loop: labels become a version, workers swap to it, and an alias is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from pathlib import Path
from random import Random

from rich.console import Console
from rich.markup import escape

from headrace import client
from headrace.client.labels import publish_labels
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.demo.children import ChildEndedError, beside
from headrace.demo.learning.screen import Observed, made_lines
from headrace.demo.learning.service import CHAMPION, EPOCHS, Keyed, Made, by_hand, made_by, training_begun
from headrace.demo.ledger import Ledger
from headrace.demo.screen import keep_shown
from headrace.demo.stream import Snapshot, all_answered, follow, publish_steadily, read_answers
from headrace.demo.texts import endless_paragraphs
from headrace.demo.workers import Workers
from headrace.kafka.aio import AioKafkaCluster
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.registry.models_log import ModelsLog, Move, alias_moves

POLL_S = 0.05
SWAP_LIMIT_S = 60.0
NO_ANSWER_LIMIT_S = 30.0


class Loop:
    """What the steps share. ``folder`` gets the logs of the processes; ``log`` is started by whoever made it."""

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
        """The moves of the alias that the workers have followed, each with what it was for."""

    async def learn(self, labels: Sequence[Keyed], what: str, erased: Sequence[Keyed] = ()) -> Made:
        """Publish ``labels`` and erase ``erased``; what the trainer makes of it, promoted by hand if the gate does not.

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

    async def take_up(self, members: Workers, number: int) -> None:
        """Wait until all ``number`` members answer by the first version. Raises ChildEndedError."""
        await members.ready(number, self._settings.topics.partitions, self._clock)
        self.say("Workers", f"{number} processes share {self._settings.topics.partitions} partitions and answer")

    @asynccontextmanager
    async def stream(self, texts: Sequence[str], rate: float, random: Random) -> AsyncIterator[Callable[[], Snapshot]]:
        """Publish paragraphs of ``texts`` while the block runs, read their answers to the end, and show it all.

        What it gives says how far the stream is.
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
                keep_shown(self._console, now, self._clock),
                publish_all(),
            ),
        ):
            yield now
            stop.set()
            await published.wait()
            await all_answered(self.ledger, NO_ANSWER_LIMIT_S, self._clock)

    async def swapped(self, what: str) -> None:
        """Wait until all partitions are answered by the champion. Raises ChildEndedError after SWAP_LIMIT_S."""
        await self._log.refresh()
        champion = self._log.aliases[self._model, CHAMPION]
        until = self._clock.monotonic() + SWAP_LIMIT_S
        while self.observed.answering(self._settings.topics.partitions) != frozenset((champion.version,)):
            if self._clock.monotonic() > until:
                raise ChildEndedError(f"The workers had not swapped to {champion.version} in {SWAP_LIMIT_S:g} s.")
            await self._clock.sleep(POLL_S)
        moves = await alias_moves(self._cluster, self._names.models, self._model)
        self.swaps.append((what, next(one for one in reversed(moves) if one.alias == champion)))
        self.say("Swapped", f"all partitions are answered by {champion.version}")

    async def by_hand(self, *command: str) -> None:
        """Run `headrace models` and say what it printed. Raises ChildEndedError when it fails."""
        printed = await by_hand(self._settings, *command, environ=self._environ, folder=self._folder)
        self.say("By hand", f"headrace models {' '.join(command)}: {printed}")

    def say(self, what: str, line: str) -> None:
        """Print ``line`` behind ``what``, of a width, in bold."""
        self._console.print(f"[bold]{what:<9}[/bold] {line}", soft_wrap=True)
