"""`headrace doctor`: whether all is set up right, and what mends what is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, OneJson, begin, cluster_of, say, settings_from
from headrace.commands.status import COLUMNS, finding_lines
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.kafka.acls import Role

if TYPE_CHECKING:
    from headrace.config import Loaded
    from headrace.sight.findings import Finding


def doctor(
    ctx: typer.Context,
    *,
    roles: Annotated[
        list[Role] | None,
        typer.Option(
            "--role", help="What this user is to do on the cluster; may be repeated. Missing rights are errors."
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Make a topic and delete it, to compare the broker's clock with this one.")
    ] = False,
    limit: Annotated[
        float, typer.Option(min=1, max=600, metavar="SECONDS", help="How long each check may take.")
    ] = 20.0,
    as_json: OneJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Check settings, Kafka, rights, topics, clocks, store, keys, versions, room on disks and certificates.

    Each finding is ok, a warning or an error, with what mends it. Ends with 0 where all is ok, with 1 when there are
    warnings, and with 2 when there are errors. Nothing is written without --probe.
    """
    from headrace.config import SettingsError
    from headrace.sight.doctor import exit_code
    from headrace.sight.findings import Finding, Level

    try:
        loaded = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
        begin(ctx, bootstrap)
    except SettingsError as error:
        lines = str(error).split("\n")
        findings: tuple[Finding, ...] = tuple(
            Finding("settings", Level.ERROR, line, "headrace config reference") for line in lines
        )
    else:
        findings = (*_settings(loaded), *asyncio.run(_examine(loaded, tuple(roles or ()), probe, limit)))
    _print(findings, as_json=as_json)
    raise typer.Exit(exit_code(findings))


def _settings(loaded: Loaded) -> Sequence[Finding]:
    from headrace.sight.findings import Finding, Level

    ignored = [
        Finding(
            "settings.ignored",
            Level.WARNING,
            f"The variable {variable} sets nothing{'' if nearest is None else f'; did you mean {nearest}?'}",
            f"unset {variable}",
        )
        for variable, nearest in loaded.ignored
    ]
    given = sum(origin != "default" for origin in loaded.origins.values())
    return ignored or [Finding("settings", Level.OK, f"The settings can be used; {given} of them are given.")]


async def _examine(loaded: Loaded, roles: tuple[Role, ...], probe: bool, limit_s: float) -> tuple[Finding, ...]:
    from headrace.commands.topics import acl_names, wanted_topics
    from headrace.core.clock import SystemClock
    from headrace.sight.doctor import Asked, examine
    from headrace.sight.findings import Finding, Level

    settings = loaded.settings
    asked = Asked(
        wanted=tuple(wanted_topics(settings.topics)),
        names=acl_names(settings, ()),
        roles=roles,
        probe=probe,
        limit_s=limit_s,
    )
    try:
        cluster = cluster_of(settings)
        with cluster.calmed():
            return await examine(cluster, settings, asked, SystemClock(), os.environ)
    except UserError as error:  # a certificate or key that no client can be made with
        return (Finding("kafka", Level.ERROR, str(error), "headrace config show"),)


def _print(findings: Sequence[Finding], *, as_json: bool) -> None:
    import msgspec

    from headrace.sight.findings import Level

    if as_json:
        say(msgspec.json.encode({"findings": findings}).decode())
        return
    for one in findings:
        say("\n".join(finding_lines(one, COLUMNS)))
    counts = [
        quantity(count, str(level))
        for level in (Level.ERROR, Level.WARNING)
        if (count := sum(one.level is level for one in findings))
    ]
    say(f"\n{', '.join(counts)} in {quantity(len(findings), 'finding')}." if counts else "\nAll is well.")
