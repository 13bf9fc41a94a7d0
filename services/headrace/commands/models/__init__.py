"""`headrace models`: versions and aliases on the models topic, by hand."""

from __future__ import annotations

import typer

from headrace.commands.models.comparing import compare
from headrace.commands.models.differing import diff
from headrace.commands.models.keygen import keygen
from headrace.commands.models.listing import list_
from headrace.commands.models.moving import pin, promote, rollback, unpin
from headrace.commands.models.pruning import prune
from headrace.commands.models.publishing import publish
from headrace.commands.models.showing import show
from headrace.commands.models.training import reproduce, train

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def models() -> None:
    """Publish versions, look at them, and move the aliases that workers follow."""


app.command()(publish)
app.command("list")(list_)
app.command()(show)
app.command()(diff)
app.command()(compare)
app.command()(promote)
app.command()(rollback)
app.command()(pin)
app.command()(unpin)
app.command()(prune)
app.command()(train)
app.command()(reproduce)
app.command()(keygen)
