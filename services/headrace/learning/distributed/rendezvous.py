"""How the ranks of one training find each other, and an exchange between them over gloo.

On one machine by a file in a folder that only this user reaches. Across machines by a store that rank 0 keeps open at
its machine's address: a rank that comes waits until all are there, and one that comes a second time, because it died
and was started again, ends the others, so that all start again together. Both stores are torch's; what they are asked
here is only whether a key is there, and gloo keeps its ranks' addresses in them. Nothing of either is unpickled.

Nobody is asked who he is. Who reaches the store or a rank's socket can end the training, and make its weights his own.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import timedelta
from typing import Final

import msgspec
from torch import distributed
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined] # public, by its docs

from headrace.core.errors import UserError
from headrace.learning.distributed.collectives import Alone, Collective, Exchange
from headrace.learning.distributed.job import Job
from headrace.process.logs import PATIENCE_S, Reminder, event
from headrace.process.ports import why_not

LONGEST_MEETING_S: Final = 300.0
"""How long a rank waits for those of other machines before it gives up, to be started again."""

_LOOK_S = 1.0
_LOST: Final = timedelta(seconds=60)
"""How long the store of rank 0 may take to answer before its machine counts as lost."""

RANK_FAILED: Final = "rank.failed"
"""The event by which a rank says in ``error`` why it ends, ``lasting`` when to start it again would change nothing."""

_OPEN = "open"
_AGAIN = "again"


class RendezvousError(UserError):
    """The ranks of a training don't find each other."""


class OnThisMachine(msgspec.Struct, frozen=True, tag="file"):
    """``path``: a file that is not there yet, in a folder that only this user reaches."""

    path: str


class AcrossMachines(msgspec.Struct, frozen=True, tag="tcp", kw_only=True):
    """Rank 0 listens on ``port`` of ``listen``, its machine's own IP address; the others reach it at ``host``."""

    host: str
    port: int
    listen: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank is told when it is started: the job, and that it is ``rank`` of ``world``, counted from 0."""

    job: Job
    rank: int
    world: int
    meeting: OnThisMachine | AcrossMachines


def join(told: Assignment) -> Exchange:
    """Wait for all ranks and return the exchange with them, which there is once in a process.

    Raises RendezvousError where the meeting place can't be listened on, or some did not come.
    """
    if told.world == 1:
        return Alone()
    # The store is always given: by itself torch would open one on every interface, as the environment says.
    store: Store
    if isinstance(told.meeting, OnThisMachine):
        store = FileStore(told.meeting.path, told.world)
    else:
        store = _meet(told, told.meeting)
    distributed.init_process_group("gloo", store=store, rank=told.rank, world_size=told.world)
    return Collective()


class _Patience:
    """Waits for the other ranks, with words, and not for ever."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._begun_s = time.monotonic()
        self._reminder = Reminder()

    def pause(self, why: str) -> None:
        """Raises RendezvousError past LONGEST_MEETING_S."""
        now_s = time.monotonic()
        if now_s > self._begun_s + LONGEST_MEETING_S:
            raise RendezvousError(f"The ranks did not meet within {LONGEST_MEETING_S:g} s: {why}")
        if now_s > self._begun_s + PATIENCE_S and self._reminder.due(why, now_s):
            event("rank.waits", rank=self._rank, why=why)
        time.sleep(_LOOK_S)


def _meet(told: Assignment, meeting: AcrossMachines) -> Store:
    patience = _Patience(told.rank)
    prefix = told.job.id
    own = _opened(told, meeting) if told.rank == 0 else None
    store = PrefixStore(prefix, own or _client(meeting, patience))
    if own is not None:
        store.set(_OPEN, "")
    # A store without the training's key is of another one; where this rank was before, it is about to end.
    while not store.check([_OPEN]) or store.add(_came(told.rank), 1) > 1:
        if store.check([_OPEN]):
            store.set(_AGAIN, "")
        patience.pause(f"{meeting.host}:{meeting.port} is held by ranks that began before")
        store = PrefixStore(prefix, _client(meeting, patience))
    everybody = [_came(rank) for rank in range(told.world)]
    while not store.check(everybody):
        here = sum(store.check([name]) for name in everybody)
        patience.pause(
            f"{here} of {told.world} ranks came to {meeting.host}:{meeting.port}; each other machine runs "
            "`headrace trainer --node NUMBER`"
        )
    watched = PrefixStore(prefix, _client(meeting, patience))
    threading.Thread(target=_watch, args=(watched,), name="rendezvous", daemon=True).start()
    return store


def _opened(told: Assignment, meeting: AcrossMachines) -> TCPStore:
    """The store, on a socket of ours: left to itself it listens on every interface (pytorch issue 173909)."""
    family = socket.AF_INET6 if ":" in meeting.listen else socket.AF_INET
    try:
        listening = socket.create_server((meeting.listen, meeting.port), family=family)
    except OSError as error:
        raise RendezvousError(
            f"Training {told.job.id}: machine 0 can't listen on {meeting.listen}:{meeting.port}: "
            f"{why_not(error)}. The port is that of the rendezvous, the address is this machine's own."
        ) from error
    return TCPStore(
        meeting.listen,
        meeting.port,
        is_master=True,
        timeout=_LOST,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )


def _client(meeting: AcrossMachines, patience: _Patience) -> TCPStore:
    """A connection to the store. A plain one is tried first: torch writes pages about each that is refused."""
    while True:
        try:
            socket.create_connection((meeting.host, meeting.port), timeout=_LOST.total_seconds()).close()
        except OSError as error:
            why = f"{meeting.host}:{meeting.port} can't be reached ({error.strerror or error})"
            patience.pause(f"{why}; is machine 0 training, and is that its address?")
        else:
            return TCPStore(meeting.host, meeting.port, is_master=False, timeout=_LOST, wait_for_workers=False)


def _watch(store: Store) -> None:
    """End this rank when another one has started again, or rank 0 is gone: both would be waited for in vain."""
    while True:
        time.sleep(_LOOK_S)
        try:
            why = "a rank of this training has died and come again" if store.check([_AGAIN]) else None
        except RuntimeError as error:
            why = f"rank 0 can't be reached any more: {error}"
        if why is not None:
            event(RANK_FAILED, level="error", error=why, lasting=False)
            # The other threads are in the middle of an exchange that never ends.
            os._exit(1)


def _came(rank: int) -> str:
    return f"came/{rank}"
