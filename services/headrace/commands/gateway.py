"""`headrace gateway`: the service that answers over HTTP."""

from __future__ import annotations

import functools
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import STARTING, Bootstrap, admin_port, cluster_of, freeze, settings_from, tracing
from headrace.core.errors import UserError
from headrace.process.lifecycle import EXIT_SETTINGS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from headrace.config import Settings
    from headrace.core.clock import Clock
    from headrace.gateway.gateway import Gateway, Mounted
    from headrace.kafka.interface import Cluster


STOP_S = 20.0
"""How long a gateway may take to end after gateway.drain."""


class OpenDoorError(UserError):
    """A gateway would let in whoever reaches it."""

    exit_code = EXIT_SETTINGS


def gateway(
    ctx: typer.Context,
    *,
    host: Annotated[str | None, typer.Option(help="The address to serve on; short for gateway.host.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to serve on, 0 for any; short for gateway.port.")] = None,
    group: Annotated[str | None, typer.Option(help="The group that divides the reading; short for gateway.group.")] = (
        None
    ),
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Ask for no API key: whoever reaches it may do everything.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C: callers publish texts and get their labels, without Kafka.

    Callers need API keys (`headrace keys add`). With them its console is at /console/, for people who label, look after
    versions and watch. On an address of this machine --no-keys does without keys, and without a console.
    """
    from headrace.gateway.origin import is_own_machine
    from headrace.process import lifecycle, logs

    options = {
        "--bootstrap": ("kafka.bootstrap", bootstrap),
        "--host": ("gateway.host", host),
        "--port": ("gateway.port", port),
        "--group": ("gateway.group", group),
        "--no-keys": ("gateway.keys", False if no_keys else None),
    }
    settings = settings_from(ctx, options).settings
    logs.configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    own = settings.gateway
    if not own.keys and not is_own_machine(own.host):
        raise OpenDoorError(
            f"Without API keys whoever reaches {own.host} could read all answers, write labels and move aliases. "
            "--no-keys goes with an address of this machine, such as gateway.host = 127.0.0.1."
        )
    if own.tls_certfile is None and not is_own_machine(own.host):
        why = "API keys and texts pass unencrypted, unless something in front of it encrypts: gateway.tls_certfile"
        logs.event("gateway.plain", level="warning", host=own.host, why=why)
    if "tenant" not in settings.requests.copy_headers:
        logs.event(
            "gateway.no_tenants",
            level="warning",
            why="requests.copy_headers has no tenant, so answers of requests that retention deleted are nobody's",
        )
    logs.event("gateway.starting", bootstrap=settings.kafka.bootstrap)
    lifecycle.run(functools.partial(_serve, settings), drain_s=own.drain + STOP_S)


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    """The composition root: everything that a gateway touches is made here and passed in."""
    import os
    import socket
    import uuid

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.gateway.gateway import Gateway
    from headrace.gateway.metrics import GatewayMetrics
    from headrace.kafka.aio import calmed

    registry = CollectorRegistry()
    clock, cluster = SystemClock(), cluster_of(settings)
    with calmed():
        running: Gateway | None = None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                admin_port(settings, registry, lambda: STARTING if running is None else running.unready)
            )
            process = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            tracer = await stack.enter_async_context(tracing(settings, "gateway", process))
            running = Gateway(
                cluster=cluster,
                topics=settings.topics.names(),
                settings=settings.gateway,
                shape=settings.requests,
                max_request_size=settings.kafka.max_request_size,
                model_name=settings.worker.model_name,
                clock=clock,
                metrics=GatewayMetrics(registry),
                process=process,
                delivery_s=settings.kafka.delivery_timeout_ms / 1000,
                idempotency_ms=settings.topics.idempotency_ms,
                away_after=settings.kafka.away_after_ms / 1000,
                trusted=settings.signing.trusted,
                tracer=tracer,
            )
            if settings.gateway.keys:
                running.serve_console(await stack.enter_async_context(_console(settings, cluster, clock, running)))
            await running.run(stop, lambda _: freeze())


@asynccontextmanager
async def _console(settings: Settings, cluster: Cluster, clock: Clock, gateway: Gateway) -> AsyncIterator[Mounted]:
    """The console of ``gateway``, for those who have a key to it."""
    from starlette.applications import Starlette

    from headrace.gateway.console.access import Caller, caller_of
    from headrace.gateway.console.console import Console
    from headrace.gateway.gateway import Mounted
    from headrace.gateway.origin import hosts_of

    def authorize(token: str) -> Caller | None:
        return caller_of(gateway.access.key_of(token))

    async with Console(
        cluster, settings, clock, authorize=authorize, admits=gateway.access.key_of, hosts=hosts_of(settings.gateway)
    ) as console:
        yield Mounted(Starlette(routes=console.routes()), console.end_streams)
