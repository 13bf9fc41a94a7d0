"""A fault as data: what it is called, where it can happen, what it does, and what has to hold afterwards."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from load.chaos.world import World

Strike: TypeAlias = "Callable[[World], Coroutine[Any, Any, None]]"
"""Does the fault to a running world and mends what it broke, as an operator or a supervisor would.

It may draw from ``world.rng``. What it awaits is bounded. It raises what goes wrong beside the fault itself, and
AssertionError when something is not as the fault expects, such as an event that no worker said.
"""


class Fault(Struct, frozen=True, kw_only=True):
    """``title`` is its row in the table, a phrase in lower case.

    ``expect`` "kept": all that was acknowledged is answered, in order, once. "said": what can't be answered is lost to
    something outside, and workers or readers have said so; ``strike`` checks that they did, and ends the stream
    itself where it can't go on. ``workers`` run when it begins, with the settings ``sets``, as the command ``program``
    in place of `headrace`; with ``follows`` they follow the alias `champion`, which points at the run's model then.
    ``stall_s`` bounds the longest time without progress. One with ``server`` settings has a
    cluster of its own. ``sequence`` says whether it can happen in the middle of others.
    """

    name: str
    title: str
    about: Literal["worker", "network", "broker", "log", "trainer", "client", "sequence"]
    strike: Strike
    nodes: Literal[1, 3] = 1
    expect: Literal["kept", "said"] = "kept"
    workers: int = 2
    sets: Mapping[str, str] = {}
    program: tuple[str, ...] = ()
    follows: bool = False
    server: Mapping[str, str] | None = None
    stall_s: float | None = None
    rate: float = 400.0
    sequence: bool = True
