"""`headrace demo`: train, answer the held-out texts and a stream, and audit the answers, in this order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import islice
from random import Random

from rich.console import Console
from rich.markup import escape

from headrace import client
from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.demo import screen, stream
from headrace.demo.setup import (
    Order,
    beside,
    child_environment,
    create_topics,
    demo_settings,
    kafka_for,
    keep,
    prefix_for,
    ready,
    train_model,
    workers,
)
from headrace.demo.stream import Ledger, Sent
from headrace.demo.texts import endless_paragraphs
from headrace.security.private_folder import temporary_folder

MEMBERS = 2
KEPT = "model.safetensors"
NO_ANSWER_LIMIT_S = 30.0


async def show(order: Order, *, console: Console, clock: Clock, random: Random) -> bool:
    """Run the demo. Returns whether the audit found every text answered once.

    Raises a UserError or KafkaError. All processes that it started have ended when it returns, raises or is cancelled.
    """
    texts = order.texts
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder("headrace-demo-"))
        kafka = await stack.enter_async_context(kafka_for(order.kafka, order.broker))
        model = folder / "model.safetensors"
        settings = demo_settings(kafka, prefix_for(random), str(model))
        await create_topics(settings)
        names = settings.topics.names()
        broker = order.broker.value if order.kafka is None else "your cluster"
        prefix = settings.topics.prefix
        console.print(
            f"[bold]Kafka[/bold] at {kafka.bootstrap} ({broker}); topics {prefix}classify.*",
            soft_wrap=not console.is_terminal,
        )
        environ = child_environment(order.environ, kafka, folder)

        console.print(f"[bold]Training[/bold] on {escape(texts.name)}, by `headrace train`")
        await train_model(texts.rows, model, environ=environ)
        keep(model, order.keep_in / KEPT)

        members = await stack.enter_async_context(workers(settings, MEMBERS, environ=environ, folder=folder))
        ledger = Ledger()
        async with beside(members.watch()):
            begun = clock.monotonic()
            await ready(members, MEMBERS, settings.topics.partitions, clock)
            console.print(
                f"[bold]Workers[/bold]: {MEMBERS} processes of `headrace worker` share "
                f"{settings.topics.partitions} partitions, ready after {clock.monotonic() - begun:.1f} s"
            )
            connection = await stack.enter_async_context(
                client.connect(kafka=kafka, requests=names.requests, results=names.results)
            )
            reader = await stack.enter_async_context(connection.reader("earliest"))
            async with beside(stream.read_answers(reader, ledger, clock)):
                end = await _publish(order, connection, ledger, console=console, clock=clock, random=random)
        _close(order, settings, ledger, end, console)
        return not ledger.waiting and not ledger.repeated


async def _publish(
    order: Order, connection: client.Client, ledger: Ledger, *, console: Console, clock: Clock, random: Random
) -> stream.Snapshot:
    """Publish the held-out texts and wait for their answers, then the stream of paragraphs, shown as it goes."""
    held_out = order.texts.held_out
    left_out = f" ({order.texts.too_long:,} too long for a record are left out)" if order.texts.too_long else ""
    console.print(f"[bold]Publishing[/bold] {len(held_out):,} held-out texts{left_out}")
    articles = [Sent(text, truth=label) for text, label in zip(held_out.texts, held_out.labels, strict=True)]
    await stream.publish_all(connection, ledger, articles)
    await stream.all_answered(ledger, NO_ANSWER_LIMIT_S, clock)

    console.print(f"[bold]Streaming[/bold] their paragraphs at {order.rate:,g}/s for {order.seconds:g} s")
    paragraphs = endless_paragraphs(held_out.texts, random)
    total = round(order.rate * order.seconds)
    now = stream.follow(ledger, seconds=order.seconds, clock=clock)
    async with beside(screen.keep_shown(console, lambda: screen.view(now()), clock)):
        await stream.publish_steadily(connection, ledger, islice(paragraphs, total), rate=order.rate, clock=clock)
        await stream.all_answered(ledger, NO_ANSWER_LIMIT_S, clock)
        return now()


def _close(order: Order, settings: Settings, ledger: Ledger, end: stream.Snapshot, console: Console) -> None:
    console.print("\n[bold]Result[/bold]")
    for line in screen.closing(ledger, end):
        # Lines are wrapped between words on a terminal, and not wrapped for a program.
        console.print(line, soft_wrap=not console.is_terminal)
    if order.kafka is not None:
        console.print(
            f"The topics {settings.topics.prefix}classify.* stay on {settings.kafka.bootstrap} until you delete them:\n"
            f"headrace --bootstrap {settings.kafka.bootstrap} topics delete --all --prefix '{settings.topics.prefix}'",
            soft_wrap=True,
        )
    console.print("\n[bold]Try next[/bold]")
    place = screen.Place(bootstrap=order.kafka.bootstrap if order.kafka else None, model=str(order.keep_in / KEPT))
    for line in screen.next_steps(place):
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
