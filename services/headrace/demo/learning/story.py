"""The learning path from its beginning to its end, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

from rich.console import Console

from headrace.core.clock import Clock
from headrace.demo.children import beside
from headrace.demo.learning.loop import Loop
from headrace.demo.learning.screen import erasure, in_order, order_of_versions, swap, swaps_table, whole_stream
from headrace.demo.learning.service import Keyed, Made, in_two_parts, learning_settings, quotes, to_forget, trainer
from headrace.demo.screen import audit
from headrace.demo.setting import Broker, Order, child_environment, create_topics, kafka_for, prefix_for
from headrace.demo.stream import Snapshot
from headrace.demo.workers import workers
from headrace.kafka.aio import AioKafkaCluster
from headrace.registry.models_log import ModelsLog
from headrace.registry.versions import load_version
from headrace.security.private_folder import temporary_folder

MEMBERS = 2
FIRST_SHARE = 0.6


async def tell(order: Order, *, console: Console, clock: Clock, random: Random) -> bool:
    """Run the demo and return whether the audit holds: every text answered once and by the version whose turn it was,
    and what was erased is in nothing of the later version.

    Raises a UserError or KafkaError. Whatever it started has ended when it returns, raises or is cancelled.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder("headrace-demo-"))
        if order.kafka is None and order.broker is Broker.APACHE:
            console.print("Starting Apache Kafka, whose jars Maven fetches the first time", soft_wrap=True)
        kafka = await stack.enter_async_context(kafka_for(order.kafka, order.broker))
        prefix = prefix_for(random)
        broker = order.broker.value if order.kafka is None else "your cluster"
        # The topics that stay on a cluster name the artifacts, so these stay too.
        store = folder / "store" if order.kafka is None else order.keep_in / f"{prefix}store"
        settings = learning_settings(kafka, prefix, store)
        await create_topics(settings)
        log = ModelsLog(AioKafkaCluster(kafka), settings.topics.names().models)
        stack.push_async_callback(log.stop)
        await log.start()
        environ = child_environment(order.environ, kafka, folder)
        loop = Loop(settings, environ=environ, folder=folder, log=log, console=console, clock=clock)
        loop.say("Kafka", f"at {kafka.bootstrap} ({broker}); topics {prefix}classify.*")

        teacher = await stack.enter_async_context(trainer(settings, environ=environ, folder=folder))
        members = await stack.enter_async_context(workers(settings, MEMBERS, environ=environ, folder=folder))
        first, rest = in_two_parts(order.texts.rows, FIRST_SHARE, random)
        async with beside(teacher.watch(), members.watch()):
            loop.say("Workers", f"{MEMBERS} processes of `headrace worker` wait for a first version")
            old = await loop.learn(first, f"{FIRST_SHARE:.0%} of {order.texts.name}")
            await loop.take_up(members, MEMBERS)
            erased = to_forget(first, rest, load_version(old.version, (), settings.places()))
            async with loop.stream(order.texts.held_out.texts, order.rate, random) as now:
                await clock.sleep(order.seconds)
                new = await loop.learn(rest, "the others", erased)
                await loop.swapped("2, trained")
                await clock.sleep(order.seconds)
                await loop.by_hand("rollback")
                await loop.swapped("1, rollback")
                await clock.sleep(order.seconds)
                await loop.by_hand("promote", new.version.version)
                await loop.swapped("2, promoted")
                await clock.sleep(order.seconds)
        if order.kafka is not None:
            loop.say("Kafka", f"the topics {prefix}classify.* stay there, and their artifacts in {store}")
        return _close(loop, now(), old, new, erased, console)


def _close(loop: Loop, end: Snapshot, old: Made, new: Made, erased: Sequence[Keyed], console: Console) -> bool:
    """Print the result; whether it is as it should be."""
    champions = [old.version.version, *(move.alias.version for _, move in loop.swaps)]
    kept = in_order(loop.observed.runs.values(), champions)
    quoted, still = (quotes(load_version(made.version, (), loop.places), erased) for made in (old, new))
    left_out = 0 if new.version.lineage is None else new.version.lineage.dropped.get("erased", 0)
    console.print()
    console.print(swaps_table([(what, swap(loop.observed.waits, move)) for what, move in loop.swaps]))
    for line in (
        *whole_stream(end),
        erasure(len(erased), left_out, quoted, still),
        order_of_versions(kept=kept),
        audit(loop.ledger),
    ):
        console.print(line, soft_wrap=True)
    forgotten = still == 0 and left_out == len(erased)
    return kept and forgotten and not loop.ledger.waiting and not loop.ledger.repeated
