"""The state of a training in the store, so that it goes on after a rank, a machine or the trainer has died."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.learning.distributed.collectives import Exchange, decode, encode
from headrace.model import store
from headrace.model.places import Location, Places


class Checkpoints(Protocol):
    """Named states of one training. All ranks call these together, with equal states.

    A state is of what :func:`~headrace.learning.distributed.collectives.encode` takes; tuples in it come back as lists.
    """

    def save(self, name: str, state: dict[str, Any]) -> None: ...
    def load(self, name: str) -> dict[str, Any] | None:
        """The state last saved as ``name``, or None: the same on every rank."""


class NoCheckpoints:
    """For a training that starts again when it is interrupted."""

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep nothing."""

    def load(self, name: str) -> dict[str, Any] | None:  # noqa: ARG002 - as Checkpoints has it
        return None


class StoredCheckpoints:
    """Files in the folder ``uri``, which lies below one of ``places``.

    Rank 0 writes and reads, so only its machine needs to reach it.
    """

    def __init__(self, uri: str, exchange: Exchange, places: Places) -> None:
        self._folder = uri.rstrip("/")
        self._exchange = exchange
        self._places = places

    def save(self, name: str, state: dict[str, Any]) -> None:
        if self._exchange.rank == 0:
            # Whoever dies while writing leaves the checkpoint before.
            store.write(self._at(name), encode(state), name)

    def load(self, name: str) -> dict[str, Any] | None:
        own = store.read_if_there(self._at(name)) if self._exchange.rank == 0 else None
        data = self._exchange.gather(own or b"", bytes)[0]
        return decode(data, dict[str, Any]) if data else None

    def _at(self, name: str) -> Location:
        return self._places.locate(f"{self._folder}/{name}.msgpack")
