"""Ranks as processes that have the settings of the command that starts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.commands.common import Invocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import typer

    from headrace.model.places import Places
    from headrace.training.settings import TrainerSettings
    from headrace.training.trainer.conducting import Launch

# Of an event that a rank logs: what the log of this process adds itself.
_OUR_OWN = ("time", "level", "event")


def launcher(
    ctx: typer.Context, bootstrap: str | None, settings: TrainerSettings, places: Places, node: int = 0
) -> Launch:
    """What starts the ranks of a job on machine ``node``. Their events go to this log too.

    ``bootstrap`` is the command's own option. ``places`` are those where the files of the training may lie.
    """
    from headrace.security.private_folder import private_folder
    from headrace.training.ranks.job import Job, Outcome
    from headrace.training.ranks.launch import Nodes, launch

    given = ctx.ensure_object(Invocation)
    program = ["headrace"]
    if given.file is not None:
        program += ["--config", str(given.file)]
    for assignment in given.sets:
        program += ["--set", assignment]
    if (address := bootstrap or given.bootstrap) is not None:
        program += ["--bootstrap", address]
    if given.log_level is not None:
        program += ["--log-level", given.log_level]
    # The command's own options, such as --store, are in them too.
    program += ["--set", allowing(places)]
    folder = private_folder(given.environ).folder("trainings")
    with folder.descriptor():
        pass  # said now, and not when the first training begins

    nodes = None
    if settings.nodes > 1 and settings.rendezvous is not None and settings.address is not None:
        nodes = Nodes(count=settings.nodes, number=node, endpoint=settings.rendezvous, address=settings.address)

    async def start(job: Job) -> Outcome:
        return await launch(
            job,
            ranks=settings.ranks,
            program=program,
            environ=given.environ,
            folder=folder,
            places=places,
            nodes=nodes,
            restarts=settings.max_restarts,
            on_event=_relay,
        )

    return start


def allowing(places: Places) -> str:
    """What gives ``places`` to a rank, for its option ``--set``."""
    return f"store.allowed={','.join(place.uri for place in places.allowed)}"


def _relay(said: Mapping[str, Any]) -> None:
    from headrace.logs import event

    fields = {name: value for name, value in said.items() if name not in _OUR_OWN}
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    event(said["event"], level=said.get("level", "info"), **fields)
