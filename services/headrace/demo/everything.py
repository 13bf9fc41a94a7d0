"""`headrace up`: broker, topics, workers, trainer and the gateway with its console on one machine, to try things."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
from rich.console import Console

from headrace.config import AdminSettings, LogSettings, Settings
from headrace.core.clock import Clock
from headrace.demo.setup import (
    DRAIN_S,
    Broker,
    as_options,
    beside,
    child_environment,
    create_topics,
    kafka_for,
    ready,
    workers,
)
from headrace.demo.versions import by_hand, trainer
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.settings import KafkaSettings
from headrace.process.children import Child, child, headrace
from headrace.registry.compacted_topics import KeysWriter
from headrace.security.api_keys import KeyRole, make_key
from headrace.security.private_folder import temporary_folder

MEMBERS = 2
START_S = 60.0
POLL_S = 0.05
GRACE_S = 20.0
NOTE = "headrace up"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: by ``settings``, which are the user's own, on ``kafka``, or on a ``broker`` where that is None.

    ``model`` is an artifact to answer with, None where there is none yet.
    """

    settings: Settings
    kafka: KafkaSettings | None
    broker: Broker
    model: Path | None
    environ: Mapping[str, str]


async def show(wanted: Wanted, *, console: Console, clock: Clock) -> None:
    """Start everything, say where it is, and keep it running until cancelled. Raises UserErrors and KafkaErrors."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder("headrace-up-"))
        kafka = await stack.enter_async_context(kafka_for(wanted.kafka, wanted.broker))
        settings = _settings(wanted, kafka, folder)
        environ = child_environment(wanted.environ, kafka, folder)
        await create_topics(settings)
        where = "your cluster" if wanted.kafka is not None else wanted.broker.value
        console.print(f"Kafka    {kafka.bootstrap} ({where})")
        if wanted.model is not None:
            moved = await by_hand(settings, "publish", str(wanted.model.resolve()), environ=environ, folder=folder)
            console.print(f"Version  {moved}")
        members = await stack.enter_async_context(workers(settings, MEMBERS, environ=environ, folder=folder))
        watched = [members.watch()]
        console.print(f"Workers  {MEMBERS}, which answer with what the alias {settings.worker.model} points at")
        if find_spec("torch") is not None:
            learning = await stack.enter_async_context(trainer(settings, environ=environ, folder=folder))
            watched.append(learning.watch())
            console.print("Trainer  makes versions of labels")
        else:
            console.print("Trainer  none: it needs torch (pip install 'headrace[train]')")
        token = await stack.enter_async_context(_key(settings, clock))
        gateway = await stack.enter_async_context(_gateway(settings, environ=environ, folder=folder))
        watched.append(gateway.watch())
        async with beside(*watched):
            address = await _listening(gateway, clock)
            if wanted.model is not None:
                await ready(members, MEMBERS, settings.topics.partitions, clock)
            for line in _places(address, token, answers=wanted.model is not None):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            while True:
                await clock.sleep(1.0)


def _settings(wanted: Wanted, kafka: KafkaSettings, folder: Path) -> Settings:
    """What all children are told: the user's settings, and what goes with a broker of this command's own."""
    settings = wanted.settings
    worker, trainer = settings.worker, settings.trainer
    if wanted.kafka is None:
        worker = msgspec.structs.replace(
            worker, revoke_timeout=kafka.rebalance_timeout_ms / 2000, drain_timeout=DRAIN_S
        )
        # What the broker forgets at its end, no file has to outlive.
        trainer = msgspec.structs.replace(trainer, store=str(folder / "store"))
    return msgspec.structs.replace(
        settings,
        kafka=kafka,
        worker=worker,
        trainer=trainer,
        admin=AdminSettings(port=0),
        log=LogSettings(format="json"),
    )


@asynccontextmanager
async def _key(settings: Settings, clock: Clock) -> AsyncIterator[str]:
    """The token of an API key that allows everything, and is revoked when the block ends."""
    token, record = make_key(set(KeyRole), now_ms=clock.now_ms(), note=NOTE)
    producer = AioKafkaCluster(settings.kafka).producer()
    await producer.start()
    try:
        writer = KeysWriter(producer, settings.topics.names().keys)
        await writer.publish([record])
        try:
            yield token
        finally:
            await writer.publish([msgspec.structs.replace(record, revoked_at_ms=clock.now_ms())])
    finally:
        await producer.stop()


def _gateway(settings: Settings, *, environ: Mapping[str, str], folder: Path) -> AbstractAsyncContextManager[Child]:
    return child(
        headrace(*as_options(settings), "gateway"),
        name="`headrace gateway`",
        environ=environ,
        folder=folder,
        log=folder / "gateway.log",
        grace_s=GRACE_S,
    )


async def _listening(gateway: Child, clock: Clock) -> str:
    """The address that the gateway listens on. Raises ProgramError when that takes longer than START_S."""
    until = clock.monotonic() + START_S
    while clock.monotonic() < until:
        for line in gateway.printed().splitlines():
            if b'"gateway.listening"' in line:
                address: str = json.loads(line)["address"]
                return address
        await clock.sleep(POLL_S)
    raise gateway.error(f"The gateway did not listen in {START_S:g} s.")


def _places(address: str, token: str, *, answers: bool) -> list[str]:
    """What to open and what to call."""
    first = [] if answers else ["No version answers yet: label some texts in the console, and the trainer makes one."]
    return [
        "",
        f"Console  {address}/console/#token={token}",
        f"HTTP     {address}   (/v1/classify, /v1/models, /v1/answers/PLACE)",
        f"Token    {token}   (all roles; it ends with this command)",
        "",
        *first,
        f"curl -H 'Authorization: Bearer {token}' {address}/v1/classify -d '\"The striker scored twice\"'",
        "",
        "Ctrl-C ends all of it.",
    ]
