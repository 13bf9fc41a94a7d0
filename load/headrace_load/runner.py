"""The runs of a command: each has topics of its own, is shown while it goes on, is recorded, and its topics are
removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from aiokafka.errors import KafkaError as AioKafkaError
from msgspec import Struct
from rich.console import Console

from headrace_load.contender import Contender, starter
from headrace_load.measure.run import run
from headrace_load.report.html import write_report
from headrace_load.report.live import live
from headrace_load.report.pictures import write_pictures
from headrace_load.report.tables import show
from headrace_load.result import Comparison, Result, write
from headrace_load.target import Start, System, Target, make_topics, remove_topics
from headrace_load.workload.spec import Backlog, Workload

RESULT = "result.json"
COMPARISON = "comparison.json"
REPORT = "report.html"
Around: TypeAlias = Callable[[Start, System], Start]
"""Wraps a contender's start, to do something while it runs."""


class Runner(Struct, frozen=True, kw_only=True):
    """Runs at ``target``, each in a folder of its own under ``folder``."""

    target: Target
    folder: Path
    console: Console

    async def run(
        self,
        workload: Workload,
        contender: Contender | None,
        *,
        name: str,
        number: int = 0,
        around: Around | None = None,
    ) -> Result:
        """One run against ``contender``, or against workers that answer already.

        It writes result.json and logs into ``folder``, or, for one run of several, into a folder NUMBER there.
        ``around`` wraps the contender's start. Raises errors of :func:`headrace_load.measure.run.run` and of starting
        the contender.
        """
        folder = self.folder / f"{number:02}" if number else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if contender is None:
            result = await self._shown(workload, None, self.target.existing, None, name)
        else:
            system = self.target.own(f"{number:02}")
            await make_topics(system, self.target.partitions)
            start = starter(
                contender,
                system,
                group=f"{self.target.prefix}{number:02}",
                folder=folder,
                wait=not isinstance(workload.arrivals, Backlog),
            )
            if around is not None:
                start = around(start, system)
            try:
                result = await self._shown(workload, contender, system, start, name)
            except BaseException:
                await self._clear(system)
                raise
            if result.audit.kept:
                await self._clear(system)
            elif not self.target.transient:
                self.console.print(
                    f"The audit failed, so the topics {system.requests} and so on are left to be looked at."
                )
        write(result, folder / RESULT)
        return result

    async def _shown(
        self, workload: Workload, contender: Contender | None, system: System, start: Start | None, name: str
    ) -> Result:
        with live(self.console, name) as progress:
            return await run(workload, contender, system, start=start, name=name, progress=progress)

    async def _clear(self, system: System) -> None:
        if self.target.transient:
            return
        try:
            await remove_topics(system)
        except AioKafkaError as error:
            # The run stands, but whoever runs the cluster has to know that its topics are left.
            self.console.print(f"The topics {system.requests} and so on could not be deleted: {error}")


def report(document: Result | Comparison, folder: Path, console: Console) -> None:
    """Write the page and the pictures into ``folder``, and print the tables."""
    write_report(document, folder / REPORT)
    write_pictures(document, folder)
    show(console, document)
    console.print(f"The report is {folder / REPORT}.", soft_wrap=True)


def stand(results: Iterable[Result]) -> bool:
    """Whether every audit was kept and no verdict refused."""
    return all(result.audit.kept and result.refused is None for result in results)
