"""`headrace topics`: the topics on the cluster, and what they should be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, Yes, begin, cluster_of, confirm, say, tell
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.kafka.acls import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from headrace.config import Settings, TopicsSettings
    from headrace.kafka.acls import Names
    from headrace.kafka.interface import Admin, TopicState
    from headrace.kafka.topics import Plan, WantedTopic
    from headrace_schemas.records import ResultsClaim

app = typer.Typer(no_args_is_help=True, add_completion=False)

Prefix = Annotated[str | None, typer.Option(help="What every topic's name begins with; short for topics.prefix.")]
Partitions = Annotated[
    int | None, typer.Option(help="Partitions of the answering path's topics; short for topics.partitions.")
]
Results = Annotated[
    str | None,
    typer.Option(metavar="TOPIC", help="Where answers go, such as those of a second group; short for topics.results."),
]


@app.callback()
def topics() -> None:
    """Create the topics, or compare them with what they should be."""


@app.command()
def apply(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    results: Results = None,
    grow: Annotated[
        bool, typer.Option("--grow", help="Add missing partitions: results first, requests last. Keys move.")
    ] = False,
) -> None:
    """Create the topics that are missing and report what is not as it should be. Nothing is ever deleted.

    Claims that workers of an older version have left on the models topic are copied to the workers topic. May be run
    again at any time. Ends with 1 when something is not as it should be.
    """
    from headrace.kafka.topics import carry_out, look

    settings = _settings(ctx, bootstrap, prefix, partitions, results)
    wanted = wanted_topics(settings.topics)

    async def run() -> tuple[Plan, Plan]:
        async with _admin(settings) as admin:
            before = await look(admin, wanted)
            await carry_out(admin, before, grow=grow)
            return before, await look(admin, wanted)

    before, after = asyncio.run(run())
    copied = asyncio.run(_copy_older_claims(settings))
    for spec in before.create:
        say(f"created {spec.name}: {quantity(spec.partitions, 'partition')}, replication {spec.replication}")
    for growth in before.grow if grow else ():
        say(f"grew {growth.topic} to {quantity(growth.total, 'partition')}")
    for claim in copied:
        names = settings.topics.names()
        say(f"copied the claim on {claim.results} from {names.models} to {names.workers}")
    if _report(after, growth_offered=not grow):
        raise typer.Exit(1)


@app.command()
def describe(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    results: Results = None,
) -> None:
    """Print every topic with its settings, who writes and who reads it, and what is not as it should be."""
    from headrace.kafka.topics import look

    settings = _settings(ctx, bootstrap, prefix, partitions, results)
    wanted = wanted_topics(settings.topics)

    async def run() -> tuple[dict[str, TopicState], Plan]:
        async with _admin(settings) as admin:
            return await admin.describe_topics([one.name for one in wanted]), await look(admin, wanted)

    found, plan = asyncio.run(run())
    _print_topics(wanted, found)
    _report(plan, growth_offered=False)


@app.command()
def delete(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]...", help="Topics of these settings, by their whole names.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every topic of these settings.")] = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    results: Results = None,
) -> None:
    """Delete topics with all their records, for good. It deletes only topics that the settings name.

    Stop workers and trainers first. Requests, results and workers topic belong together: delete all three or none, or
    workers refuse to answer a log that was made anew.
    """
    settings = _settings(ctx, bootstrap, prefix, None, results)
    titles = {one.name: one.topic.title for one in wanted_topics(settings.topics)}
    if every == bool(names):
        raise typer.BadParameter("name topics, or --all.")
    wanted = list(titles) if every else list(dict.fromkeys(names or ()))
    if foreign := [name for name in wanted if name not in titles]:
        raise ForeignTopicError(
            f"{', '.join(foreign)}: only topics of these settings are deleted: {', '.join(titles)}."
        )
    held = asyncio.run(_held(settings, wanted))
    for name in wanted:
        found = (
            f"{quantity(held[name][0], 'partition')}, {quantity(held[name][1], 'record')}"
            if name in held
            else "is not there"
        )
        say(f"{name}: {found}\n  {titles[name]}")
    if not held:
        raise typer.Exit(1)
    confirm(f"Delete {quantity(len(held), 'topic')} with all that they hold, for good?", yes=yes)

    async def run() -> None:
        async with _admin(settings) as admin:
            for name in held:
                await admin.delete_topic(name)
                say(f"deleted {name}")

    asyncio.run(run())


@app.command()
def claim(
    ctx: typer.Context,
    *,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Let workers answer up to N requests in one batch. Never lowered."),
    ] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    results: Results = None,
) -> None:
    """Show which group writes the results topic, since when, and how large its batches may be; raise that size.

    A worker with a larger worker.max_batch is refused. Raise the size here first, then set it for workers.
    """
    import datetime as dt

    settings = _settings(ctx, bootstrap, prefix, None, results)
    topic = settings.topics.names().results
    held, allowed = asyncio.run(_claim(settings, topic, max_batch))
    say(f"{topic}: answers of group {held.group} to {held.requests}")
    say(f"  claimed {dt.datetime.fromtimestamp(held.claimed_at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC")
    say(f"  began at {', '.join(f'{number}@{offset}' for number, offset in enumerate(held.starts)) or 'the beginning'}")
    say(f"  at most {quantity(allowed, 'request')} in one batch")


@app.command()
def acl(
    ctx: typer.Context,
    *,
    roles: Annotated[
        list[Role] | None, typer.Option("--role", help="A role to print; may be repeated. By default every role.")
    ] = None,
    principal: Annotated[
        str | None, typer.Option(metavar="User:NAME", help="Who gets the rights; by default a user named as the role.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="A group that readers share; may be repeated.")
    ] = None,
    command_config: Annotated[
        str | None, typer.Option(metavar="FILE", help="The file with the administrator's own login, for kafka-acls.sh.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, instead of commands.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    results: Results = None,
) -> None:
    """Print the least rights that each role needs, as commands of Kafka's kafka-acls.sh. Nothing is changed."""
    import msgspec

    from headrace.kafka.acls import commands, rights_of

    if principal is not None and not all(principal.partition(":")):
        raise typer.BadParameter(
            f"a principal has a kind and a name, such as User:{principal}", param_hint="--principal"
        )
    settings = _settings(ctx, bootstrap, prefix, None, results)
    names = acl_names(settings, groups or ())
    for role in roles or Role:
        rights, whose = rights_of(role, names), principal or f"User:{role}"
        if as_json:
            for right in rights:
                line = {"role": role, "principal": whose, **msgspec.to_builtins(right)}
                say(msgspec.json.encode(line).decode())
            continue
        say(f"# {role}")
        for command in commands(
            rights, principal=whose, bootstrap=settings.kafka.bootstrap, command_config=command_config
        ):
            say(command)


class ForeignTopicError(UserError):
    """A topic that is none of headrace's own by the settings."""

    exit_code = 2


async def _held(settings: Settings, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of the topics that are there, how many partitions they have and how many offsets lie in them."""
    from headrace.kafka.interface import TopicPartition, connected

    held: dict[str, tuple[int, int]] = {}
    async with connected(cluster_of(settings).consumer()) as consumer:
        for name in names:
            places = [TopicPartition(name, number) for number in sorted(await consumer.partitions_of(name))]
            if places:
                first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
                held[name] = len(places), sum(end.values()) - sum(first.values())
    return held


class ClaimError(UserError):
    """There is no claim, or it can't become what was asked for."""


async def _claim(settings: Settings, results: str, max_batch: int | None) -> tuple[ResultsClaim, int]:
    """The claim on ``results`` and its largest batch, raised to ``max_batch``. Raises ClaimError and a KafkaError."""
    from headrace.commands.common import open_workers
    from headrace.core.resume import LARGEST_MAX_BATCH
    from headrace_schemas.records import MaxBatch

    if max_batch is not None and max_batch > LARGEST_MAX_BATCH:
        raise ClaimError(f"worker.max_batch is at most {LARGEST_MAX_BATCH}, so no claim has to allow {max_batch}.")
    async with open_workers(settings) as (log, writer):
        held = log.claim_of(results)
        if held is None:
            raise ClaimError(
                f"Nobody has claimed {results} yet: the first worker that answers there does, with its own max_batch."
            )
        allowed = log.max_batch_of(results)
        if max_batch is not None and max_batch < allowed:
            raise ClaimError(
                f"The claim on {results} allows {quantity(allowed, 'request')} in one batch, and is never lowered: "
                "batches of that size may be in the answer log. Give workers a smaller worker.max_batch; it needs no "
                "change here."
            )
        if max_batch is not None and max_batch > allowed:
            now_ms = int(time.time() * 1000)
            await writer.publish([MaxBatch(results=results, max_batch=max_batch, raised_at_ms=now_ms)])
            await log.refresh()
        return held, log.max_batch_of(results)


async def _copy_older_claims(settings: Settings) -> Sequence[ResultsClaim]:
    from headrace.commands.common import open_workers
    from headrace.registry.compacted_topics import copy_older_claims

    async with open_workers(settings) as (log, writer):
        return await copy_older_claims(log, writer)


def acl_names(settings: Settings, reader_groups: Sequence[str]) -> Names:
    """Return the names that rights are given on, as the settings have them."""
    import msgspec

    from headrace.core.gate import HOLDOUT_TOPIC
    from headrace.kafka.acls import Names

    names = settings.topics.names()
    holdout = settings.gate.holdout or ""
    return Names(
        **msgspec.structs.asdict(names),
        worker_group=settings.worker.group,
        trainer_groups=(settings.trainer.group, f"{settings.trainer.group}-election"),
        teacher_groups=(settings.labeller.group, f"{settings.labeller.group}-election"),
        gateway_group=settings.gateway.group,
        holdout=holdout.removeprefix(HOLDOUT_TOPIC) if holdout.startswith(HOLDOUT_TOPIC) else None,
        reader_groups=tuple(reader_groups),
    )


def wanted_topics(settings: TopicsSettings) -> list[WantedTopic]:
    """Return every topic as it should be, under the name that the settings give it."""
    from headrace.kafka.topics import WantedTopic
    from headrace_schemas.topics import topics as all_topics

    names = settings.names()
    return [
        WantedTopic(getattr(names, topic.field), topic)
        for topic in all_topics("", settings.partitions, settings.retention_ms())
    ]


def _settings(
    ctx: typer.Context, bootstrap: str | None, prefix: str | None, partitions: int | None, results: str | None
) -> Settings:
    options = {
        "--prefix": ("topics.prefix", prefix),
        "--partitions": ("topics.partitions", partitions),
        "--results": ("topics.results", results),
    }
    return begin(ctx, bootstrap, options)


def _admin(settings: Settings) -> AbstractAsyncContextManager[Admin]:
    from headrace.kafka.interface import connected

    return connected(cluster_of(settings).admin())


def _report(plan: Plan, *, growth_offered: bool) -> bool:
    """Print what is not as it should be; returns whether there is anything."""
    for spec in plan.create:
        say(f"missing: {spec.name}; `headrace topics apply` creates it")
    for drift in plan.drift:
        say(f"drift: {drift.topic}: {drift.key} is {drift.found}, should be {drift.wanted}")
    if plan.grow and growth_offered:
        say("`headrace topics apply --grow` adds the missing partitions.")
    if plan.shortcoming:
        tell(plan.shortcoming)
    return bool(plan.create or plan.drift)


def _print_topics(wanted: Sequence[WantedTopic], found: dict[str, TopicState]) -> None:
    for one in wanted:
        state = found.get(one.name)
        size = f"{quantity(state.partitions, 'partition')}, replication {state.replication}" if state else "missing"
        tell(f"{one.name}: {size}\n  {one.topic.title}")
        say(f"  written by {', '.join(one.topic.writers)}; read by {', '.join(one.topic.readers)}")
        # Of the many settings that a broker reports, those that are wanted.
        config = state.config if state else {}
        for key in sorted(one.topic.settings().keys() & config.keys()):
            say(f"  {key}={config[key]}")
