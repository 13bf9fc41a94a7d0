"""`headrace classify`: one text, its label."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, begin, client_of

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas import ClassifyResult


def classify(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="The text.")],
    *,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish TEXT, wait for its answer and print the label. Ends with 1 unless the answer is ok."""
    import msgspec

    from headrace_schemas import Status

    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    result = asyncio.run(_classify(settings, text, timeout))
    if as_json:
        print(msgspec.json.encode(result).decode())
    elif result.status is Status.OK:
        print(f"{result.label}  {result.score:.3f}" if result.score is not None else result.label)
        for other in result.ranking[1:]:
            print(f"{other.label}  {other.score:.3f}")
    else:
        typer.echo(f"{result.status}: {result.reason or 'not answered in time'}", err=True)
    if result.status is not Status.OK:
        raise typer.Exit(1)


async def _classify(settings: Settings, text: str, timeout: float) -> ClassifyResult:  # noqa: ASYNC109 - the client's
    async with client_of(settings) as client:
        return await client.classify(text, timeout=timeout)
