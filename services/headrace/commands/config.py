"""`headrace config`: what is set, and where it came from."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.commands.common import console, say, settings_from

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def config() -> None:
    """Show the settings."""


@app.command()
def reference(
    *, markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/settings.md.")] = False
) -> None:
    """Print every setting with its meaning, the values that it may have and its default."""
    from headrace.config.reference import as_markdown, as_text

    say(as_markdown().removesuffix("\n") if markdown else "\n".join(as_text()))


@app.command()
def show(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, from key to value.")] = False,
) -> None:
    """Print every setting with its value and its origin. Secrets are masked."""
    rows = list(settings_from(ctx).rows())
    if as_json:
        import msgspec

        document = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        say(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "origin", box=None, pad_edge=False)
    for key, value, origin in rows:
        style = "dim" if origin == "default" else "bold"
        table.add_row(*(Text(cell, style=style, overflow="fold") for cell in (key, value, origin)))
    console().print(table)
