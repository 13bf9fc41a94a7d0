"""The labeller as a service: it stands by, is elected, and asks its teacher beside the answers (``term.py``)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import one_of_all
from headrace.kafka.election import Election, NotLeadingError
from headrace.kafka.interface import Cluster, KafkaError, UnknownTopicError
from headrace.kafka.reach import Reach, missing_of
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.interface import Teacher
from headrace.labeller.term import LabellerTopics, Term
from headrace.process.logs import event
from headrace.process.tracing import NO_TRACER, Tracer
from headrace_schemas.paths import Decode

LOOK_S = 0.1
END_CALL_S = 2.0
STOP_S = 20.0
"""How long a labeller that is asked to stop waits for the answer that its teacher is paid for."""


class Labeller:
    """One labeller. ``process`` names this run of it; ``decode`` reads a request as workers do; reviews have labels by
    the rules of ``model``.
    """

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
        resume: bool = False,
        away_after: float = 10.0,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._cluster = cluster
        self._topics = topics
        self._settings = settings
        self._teacher = teacher
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._resume = resume
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        metrics.broker.follow(lambda: self._reach.connected)
        self._election = Election(
            cluster, topic=topics.teaching, group=f"{settings.group}-election", who="labeller", clock=clock
        )
        self._new_term = functools.partial(
            Term,
            cluster=cluster,
            topics=topics,
            model=model,
            settings=settings,
            teacher=teacher,
            decode=decode,
            max_text_bytes=max_text_bytes,
            clock=clock,
            randomness=randomness,
            metrics=metrics,
            confirm=self._election.confirm,
            tracer=tracer,
        )
        self._term: Term | None = None
        self._terms = 0

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
        # Before anything is paid for: a cluster of an older version has some of them.
        if missing := await missing_of(looker, topics):
            await looker.stop()
            raise UnknownTopicError(
                f"There is no topic {', '.join(missing)}. Create headrace's topics with `headrace topics apply`."
            )
        watching = asyncio.create_task(self._reach.watch(lambda: missing_of(looker, topics)))
        try:
            await self._election.start()
            event("labeller.started", labeller=self._settings.name, teacher=self._teacher.identity.version)
            async with asyncio.TaskGroup() as group:
                electing, working = group.create_task(self._election.run()), group.create_task(self._work())
                await stop.wait()
                await self._finish()
                electing.cancel()
                working.cancel()
        except ExceptionGroup as raised:
            raise one_of_all(raised) from raised
        finally:
            watching.cancel()
            await looker.stop()
            await self._election.stop()
            event("labeller.stopped", labeller=self._settings.name)

    async def _finish(self) -> None:
        """Wait for the end of the call that is under way: it is paid for."""
        term, until_s = self._term, self._clock.monotonic() + STOP_S
        if term is not None:
            term.ending = True
            while term.calling and self._clock.monotonic() < until_s:
                await self._clock.sleep(LOOK_S)
            with contextlib.suppress(NotLeadingError, KafkaError, TimeoutError):
                async with asyncio.timeout(END_CALL_S):
                    await term.end_call()

    async def _work(self) -> None:
        while True:
            await self._election.won()
            self._terms += 1
            self._metrics.leads(leads=True)
            event("labeller.leads", labeller=self._settings.name)
            # Totals of its own: what an earlier term reserved and never settled has to stay.
            self._term = self._new_term(process=f"{self._process}.{self._terms}", resume=self._resume)
            self._resume = False
            leading = asyncio.create_task(self._term.run())
            lost = asyncio.create_task(self._election.lost())
            try:
                await asyncio.wait((leading, lost), return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
                why = "the group was not heard in time, or gave the work to another"
                event("labeller.lost", labeller=self._settings.name, why=why)
            except NotLeadingError as error:
                event("labeller.lost", labeller=self._settings.name, why=str(error))
            finally:
                for task in (leading, lost):
                    task.cancel()
                await asyncio.gather(leading, lost, return_exceptions=True)
                self._metrics.leads(leads=False)
