"""`headrace broker`: a Kafka broker in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import remark, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.kafka.brokers import BrokerProcess

CHECK_S = 0.5

EMBEDDED_HINT = (
    "The embedded broker keeps everything in memory. It has no idempotent producer and no static members: give clients "
    "--set kafka.idempotent=false --set kafka.static_members=false."
)


class BrokerKind(enum.StrEnum):
    """The brokers that can be started."""

    EMBEDDED = "embedded"
    APACHE = "apache"


def broker(
    kind: Annotated[BrokerKind, typer.Option(help="embedded keeps all in memory; apache needs Java 17 and Maven.")] = (
        BrokerKind.EMBEDDED
    ),
    nodes: Annotated[int, typer.Option(help="How many nodes: 1, or 3 of --kind apache.")] = 1,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port of the first node; 0, the default, takes a free one.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Directory that keeps the apache kind's data; without it nothing is kept.")
    ] = None,
) -> None:
    """Start a Kafka broker on 127.0.0.1, print its bootstrap address and run until Ctrl-C or SIGTERM."""
    if kind is BrokerKind.EMBEDDED and (nodes != 1 or data is not None):
        raise typer.BadParameter("The embedded broker is one node and keeps nothing; use --kind apache.")
    if nodes not in (1, 3):
        raise typer.BadParameter("Apache Kafka starts with 1 or 3 nodes.", param_hint="--nodes")
    if data is not None:
        from headrace.files.output import check_output_folder

        check_output_folder(data)
    asyncio.run(_run(kind, nodes, port or None, data))


async def _run(kind: BrokerKind, nodes: int, port: int | None, data: Path | None) -> None:
    stopping = asyncio.Event()
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()
    ready = False

    def stop() -> None:
        if ready or running is None:
            stopping.set()
        else:
            running.cancel()  # Still starting: give up where we are, which ends what was started.

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with _started(kind, nodes, port, data) as (bootstrap, processes):
            ready = True
            say(bootstrap, flush=True)
            if kind is BrokerKind.EMBEDDED:
                typer.echo(EMBEDDED_HINT, err=True)
            while not stopping.is_set():
                for process in processes:
                    if not process.running:
                        raise process.start_error("The broker ended by itself.")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), CHECK_S)
    except asyncio.CancelledError:
        if ready:
            raise


@contextlib.asynccontextmanager
async def _started(
    kind: BrokerKind, nodes: int, port: int | None, data: Path | None
) -> AsyncIterator[tuple[str, list[BrokerProcess]]]:
    if kind is BrokerKind.EMBEDDED:
        from headrace.kafka.brokers import embedded_process

        async with embedded_process(port) as (bootstrap, process):
            yield bootstrap, [process]
    else:
        from headrace.kafka.brokers import apache_broker

        async with apache_broker(nodes, port=port, log_dir=data, tell=remark) as brokers:
            yield brokers.bootstrap, brokers.processes
