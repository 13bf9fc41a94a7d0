"""`headrace classify`: one text, its label."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import NO_LABEL, Bootstrap, begin, client_of, say
from headrace.core.printable import printable

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas import ClassifyResult


def classify(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="The text.")],
    *,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as one JSON object.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish TEXT, wait for its answer and print the label. Ends with 1 unless the answer is ok.

    An answer that is too unsure for its version has no label; then what the label would have been is printed below.
    """
    import msgspec

    from headrace_schemas import Status

    settings = begin(ctx, bootstrap)
    result = asyncio.run(_classify(settings, text, timeout))
    if as_json:
        say(msgspec.json.encode(result).decode())
    elif result.status is Status.OK:
        say("\n".join(as_lines(result)))
    else:
        typer.echo(printable(f"{result.status}: {result.reason or 'not answered in time'}"), err=True)
    if result.status is not Status.OK:
        raise typer.Exit(1)


def as_lines(result: ClassifyResult) -> list[str]:
    """The label of an ok answer with its score, and then the others of its ranking.

    A ranking begins with the label, or with what the label would have been.
    """
    shown = NO_LABEL if result.label is None else result.label
    first = shown if result.score is None else f"{shown}  {result.score:.3f}"
    return [first, *(f"{other.label}  {other.score:.3f}" for other in result.ranking[result.label is not None :])]


async def _classify(settings: Settings, text: str, timeout: float) -> ClassifyResult:  # noqa: ASYNC109 - the client's
    async with client_of(settings) as client:
        return await client.classify(text, timeout=timeout)
