"""`headrace labels rename`, `merge` and `retire`: what labels are learnt as from now on. `rules` lists and undoes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from headrace.commands.common import Bootstrap, By, begin, console, open_models, say, tell, who
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.core.label_rules import learnt_as, refusal
from headrace.core.text import label_name, quantity
from headrace_schemas.records import LabelRule

Reason = Annotated[str | None, typer.Option(help="The reason, which is kept with the rule.")]
NEXT = "The next training goes by it; `headrace models train --now` orders one. Versions that exist answer as before."


class LabelRuleError(UserError):
    """A rule that can't be made, or undone."""


def rename(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(help="The label as people gave it.")],
    new: Annotated[str, typer.Argument(help="The label that it is learnt as.")],
    *,
    reason: Reason = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Learn label OLD as NEW from now on, in labels past and to come. The labels themselves stay as they are."""
    _decide(ctx, bootstrap, [old], new, reason, who(by))


def merge(
    ctx: typer.Context,
    labels: Annotated[list[str], typer.Argument(help="The labels that become one.")],
    *,
    into: Annotated[str, typer.Option(help="The label that they become; it may be one of them.")],
    reason: Reason = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Learn several labels as one from now on, in labels past and to come."""
    _decide(ctx, bootstrap, [one for one in labels if label_name(one) != label_name(into)], into, reason, who(by))


def retire(
    ctx: typer.Context,
    label: Annotated[str, typer.Argument(help="The label.")],
    *,
    reason: Reason = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Stop learning LABEL: texts that have it are left out of trainings, certificates and the gate's rows."""
    _decide(ctx, bootstrap, [label], None, reason, who(by))


def rules(
    ctx: typer.Context,
    *,
    undo: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Take the rule of a label back.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the rules of labels, or take some back. A label without a rule is learnt as people gave it."""
    from rich.table import Table
    from rich.text import Text

    settings = begin(ctx, bootstrap)

    async def run() -> list[LabelRule]:
        async with open_models(settings) as models:
            name = settings.worker.model_name
            held = {one.label: one for one in models.log.label_rules.values() if one.name == name}
            if undo:
                wanted = [label_name(label) for label in undo]
                if missing := [label for label in wanted if label not in held]:
                    raise LabelRuleError(f"There is no rule of {missing[0]}; `headrace labels rules` lists them.")
                await models.writer.forget([held[label] for label in wanted])
            return [held[label] for label in sorted(held)]

    held = asyncio.run(run())
    if undo:
        tell(f"took back {quantity(len(undo), 'rule')}. {NEXT}")
        return
    if as_json:
        for one in held:
            say(msgspec.json.encode(one).decode())
        return
    in_effect = {one.label: one.becomes for one in held}
    table = Table("label", "is learnt as", "reason", box=None, pad_edge=False)
    for one in held:
        learnt = learnt_as(one.label, in_effect)
        table.add_row(Text(one.label), Text("(no longer given)" if learnt is None else learnt), Text(one.reason or ""))
    if held:
        console().print(table)
    say(f"{quantity(len(held), 'rule')} of labels")


def _decide(
    ctx: typer.Context, bootstrap: str | None, labels: Sequence[str], becomes: str | None, reason: str | None, by: str
) -> None:
    """Publish a rule for each of ``labels``, all or none."""
    settings = begin(ctx, bootstrap)
    name, now_ms = settings.worker.model_name, SystemClock().now_ms()
    learnt = None if becomes is None else label_name(becomes)
    names = list(dict.fromkeys(map(label_name, labels)))
    if not names:
        raise LabelRuleError("There is nothing to change: name a label that becomes another one.")

    async def run() -> None:
        async with open_models(settings) as models:
            in_effect = models.log.rules_of(name)
            for label in names:
                if (why := refusal(in_effect, label, learnt)) is not None:
                    raise LabelRuleError(why)
                in_effect[label] = learnt
            await models.writer.publish(
                [
                    LabelRule(name=name, label=label, becomes=learnt, decided_at_ms=now_ms, reason=reason, by=by)
                    for label in names
                ]
            )

    asyncio.run(run())
    shown = ", ".join(names)
    are = "is" if len(names) == 1 else "are"
    tell(f"{shown} {are} no longer learnt" if learnt is None else f"{shown} {are} learnt as {learnt} from now on")
    tell(NEXT)
