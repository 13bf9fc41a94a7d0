"""`headrace models`: versions and aliases on the models topic, by hand."""

from __future__ import annotations

import typer

from headrace.commands.models.certify import certify
from headrace.commands.models.compare import compare, diff
from headrace.commands.models.publish import keygen, pin, promote, prune, publish, rollback, unpin
from headrace.commands.models.show import list_, show
from headrace.commands.models.train import reproduce, train

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
app.command()(certify)
app.command()(pin)
app.command()(unpin)
app.command()(prune)
app.command()(train)
app.command()(reproduce)
app.command()(keygen)
