"""`headrace demo`: broker, training, two workers, a stream and its audit, by one command; or learning, or teaching."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, Delimiter, Encoding, Invocation, LabelColumn, TextColumn, settings_from

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

EXIT_INTERRUPTED = 130
RATE, SECONDS = 1000.0, 20.0
LEARNING_RATE, LEARNING_SECONDS = 200.0, 5.0
TEACHING_RATE = 20.0
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
        typer.Option(min=1, help="Seconds of the stream (20); with --learning, of each version (5)."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="Texts a second in the stream (1000, with --learning 200, with --teaching 20)."),
    ] = None,
    learning: Annotated[
        bool, typer.Option("--learning", help="Show the learning path, on Apache Kafka (needs Java 17 and Maven).")
    ] = False,
    teaching: Annotated[
        bool, typer.Option("--teaching", help="Show how a teacher labels the stream of a set with few labels.")
    ] = False,
    endpoint: Annotated[
        bool,
        typer.Option("--endpoint", help="With --teaching: ask a local server that stands in for a language model."),
    ] = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="With --learning: use the broker in memory, not Apache Kafka.")
    ] = False,
) -> None:
    """Show everything at work: train on real text, start two workers, publish, read the answers, and audit them.

    With --learning 60 % of the labels become a first version. While it answers a stream, the others become a second
    one: the gate decides on it, it is swapped in, rolled back and promoted again, and the waits beside each swap are
    shown.

    With --teaching people label 10 texts of each class, and a labeller asks a teacher about the texts of the stream.
    The accuracy of four versions on held-out texts is shown, with what was spent.

    It starts a broker that keeps everything in memory, unless --bootstrap names a cluster. There the topics get a
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
    if learning and teaching:
        raise typer.BadParameter("--learning and --teaching are two demos; choose one of them.")
    if endpoint and not teaching:
        raise typer.BadParameter("--endpoint names the teacher of --teaching.")
    if teaching and seconds is not None:
        raise typer.BadParameter("--teaching ends with its fourth version, and not after --seconds.")
    if teaching:
        _check_installed("openai" if endpoint else "transformers")
    keep_in = needed_folder("demo", environ)  # before the texts are read, which takes seconds
    order = Order(
        texts=read_texts(data, text_column, label_column, Reading(delimiter, encoding)),
        kafka=loaded.settings.kafka if asked else None,
        broker=Broker.APACHE if learning and not embedded else Broker.EMBEDDED,
        rate=rate or (LEARNING_RATE if learning else TEACHING_RATE if teaching else RATE),
        seconds=seconds or (LEARNING_SECONDS if learning else SECONDS),
        environ=environ,
        keep_in=keep_in,
    )
    show: Callable[..., Coroutine[Any, Any, bool]]
    if learning:
        from headrace.demo.learning import show
    elif teaching:
        from headrace.demo.teaching import show as show_teaching

        show = functools.partial(show_teaching, endpoint=endpoint)
    else:
        from headrace.demo.answering import show
    code = lifecycle.run(functools.partial(_show, functools.partial(show, order)), drain_s=STOP_LIMIT_S)
    if code:
        raise typer.Exit(code)


def _check_installed(package: str) -> None:
    from importlib.util import find_spec

    from headrace.core.errors import UserError

    if find_spec(package) is None:
        raise UserError(f"--teaching needs {package}: pip install 'headrace[demo,teach]'")


async def _show(show: Callable[..., Coroutine[Any, Any, bool]], stop: asyncio.Event) -> int:
    from random import SystemRandom

    from headrace.commands.terminal import Terminal
    from headrace.core.clock import SystemClock
    from headrace.process.lifecycle import until_stopped

    # The demo's own lines have markup; what it shows of texts is escaped there.
    console = Terminal(highlight=False, markup=True)
    try:
        passed = await until_stopped(show(console=console, clock=SystemClock(), random=SystemRandom()), stop)
    finally:
        # A training that was ended while it drew its progress has left the cursor hidden.
        console.show_cursor()
    if passed is None:
        console.print("\nStopped. Nothing is left running.")
        return EXIT_INTERRUPTED
    return 0 if passed else 1
