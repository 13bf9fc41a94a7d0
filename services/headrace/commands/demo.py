"""`headrace demo`: broker, training, two workers, a stream and its audit, by one command; or the learning path."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, Delimiter, Encoding, Invocation, LabelColumn, TextColumn, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

EXIT_INTERRUPTED = 130
RATE, SECONDS = 1000.0, 20.0
LEARNING_RATE, LEARNING_SECONDS = 200.0, 5.0
# The workers' limits, one behind the other, take at most this long.
STOP_LIMIT_S = 30.0


def demo(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Your own labelled texts: JSON, CSV or Parquet; by default BBC News."),
    ] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="How long the stream goes on (20), or with --learning each version answers (5)."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Texts a second in the stream (1000, with --learning 200).")
    ] = None,
    learning: Annotated[
        bool, typer.Option("--learning", help="Show the learning path, on Apache Kafka (needs Java 17 and Maven).")
    ] = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="With --learning: use the broker in memory, as the demo does without it.")
    ] = False,
) -> None:
    """Show it all at work: train on real text, start two workers, publish, read the answers, and audit them.

    With --learning 60 % of the labels become a first version. While it answers a stream, the others become a second
    one: the gate decides on it, it is swapped in, rolled back and promoted again, and the waits beside each swap are
    shown.

    A broker that keeps all in memory is started for it, unless --bootstrap names a cluster: there the topics get a
    prefix of their own. Ctrl-C at any moment leaves nothing running.
    """
    import logging
    import sys

    from headrace.demo.setup import Broker, Order
    from headrace.demo.texts import read_texts
    from headrace.files.table import Reading
    from headrace.process import lifecycle, logs
    from headrace.security.private_folder import needed_folder

    loaded = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    logs.configure(sys.stderr, level="warning")
    # What fails reaches the user as one KafkaError; aiokafka would say it again, across the live table.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # A cluster in a settings file is for real work; the demo takes one only when asked to now.
    asked = loaded.origins["kafka.bootstrap"] in ("--bootstrap", "--set")
    environ = ctx.ensure_object(Invocation).environ
    if embedded and asked:
        raise typer.BadParameter("--embedded starts a broker, and --bootstrap names a cluster that runs already.")
    keep_in = needed_folder("demo", environ)  # before the texts are read, which takes seconds
    order = Order(
        texts=read_texts(data, text_column, label_column, Reading(delimiter, encoding)),
        kafka=loaded.settings.kafka if asked else None,
        broker=Broker.APACHE if learning and not embedded else Broker.EMBEDDED,
        rate=rate or (LEARNING_RATE if learning else RATE),
        seconds=seconds or (LEARNING_SECONDS if learning else SECONDS),
        environ=environ,
        keep_in=keep_in,
    )
    if learning:
        from headrace.demo.learning import show
    else:
        from headrace.demo.answering import show
    code = lifecycle.run(functools.partial(_until_stopped, functools.partial(show, order)), drain_s=STOP_LIMIT_S)
    if code:
        raise typer.Exit(code)


async def _until_stopped(show: Callable[..., Coroutine[Any, Any, bool]], stop: asyncio.Event) -> int:
    from random import SystemRandom

    from headrace.commands.terminal import Terminal
    from headrace.core.clock import SystemClock

    # The demo's own lines have markup; what it shows of texts is escaped there.
    console = Terminal(highlight=False, markup=True)
    told = asyncio.ensure_future(show(console=console, clock=SystemClock(), random=SystemRandom()))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((told, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not told.done():
        told.cancel()
        await asyncio.wait((told,))
        # A training that was ended while it drew its progress has left the cursor hidden.
        console.show_cursor()
    if told.cancelled():
        console.print("\nStopped. Nothing is left running.")
        return EXIT_INTERRUPTED
    return 0 if told.result() else 1
