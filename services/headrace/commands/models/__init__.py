"""`headrace models`: versions and aliases on the models topic, by hand."""

from __future__ import annotations

import typer

from headrace.commands.models.listing import list_
from headrace.commands.models.publishing import publish

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def models() -> None:
    """Publish versions, look at them, and move the aliases that workers follow."""


app.command()(publish)
app.command("list")(list_)
