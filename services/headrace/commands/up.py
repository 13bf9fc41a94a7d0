"""`headrace up`: everything on one machine, to try it with a browser and with curl."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, Invocation, settings_from

if TYPE_CHECKING:
    import asyncio

    from headrace.demo.everything import Wanted

# The limits of the parts, one behind the other, take at most this long.
STOP_LIMIT_S = 60.0


def up(
    ctx: typer.Context,
    *,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The artifact that answers; by default that of the last demo, if any."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to serve on, 0 for any; short for gateway.port.")
    ] = None,
    apache: Annotated[
        bool, typer.Option("--apache", help="Start Apache Kafka, which needs Java 17, instead of a broker in memory.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Start a broker, the topics, two workers, a trainer and the gateway with its console, and say where they are.

    With --bootstrap they run on a cluster of yours, by your settings, and what they write stays there. Otherwise the
    broker keeps all in memory. Ctrl-C ends everything that was started.
    """
    import logging
    import sys

    from headrace.core.errors import UserError
    from headrace.demo.setup import Broker
    from headrace.process import lifecycle, logs
    from headrace.security.private_folder import kept_folders

    loaded = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap), "--port": ("gateway.port", port)})
    logs.configure(sys.stderr, level="warning")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asked = loaded.origins["kafka.bootstrap"] in ("--bootstrap", "--set")
    if apache and asked:
        raise typer.BadParameter("--apache starts a broker, and --bootstrap names a cluster that runs already.")
    environ = ctx.ensure_object(Invocation).environ
    if model is not None and not model.is_file():
        raise UserError(f"--model: there is no file {model}.")
    if model is None:
        kept = (folder / "model.safetensors" for folder in kept_folders("demo", environ))
        model = next((file for file in kept if file.is_file()), None)

    from headrace.demo.everything import Wanted

    wanted = Wanted(
        settings=loaded.settings,
        kafka=loaded.settings.kafka if asked else None,
        broker=Broker.APACHE if apache else Broker.EMBEDDED,
        model=model,
        environ=environ,
    )
    code = lifecycle.run(functools.partial(_show, wanted), drain_s=STOP_LIMIT_S)
    if code:
        raise typer.Exit(code)


async def _show(wanted: Wanted, stop: asyncio.Event) -> int:
    from headrace.commands.terminal import Terminal
    from headrace.core.clock import SystemClock
    from headrace.demo.everything import show
    from headrace.process.lifecycle import until_stopped

    console = Terminal(highlight=False)
    await until_stopped(show(wanted, console=console, clock=SystemClock()), stop)
    console.print("Stopped. Nothing is left running.")
    return 0
