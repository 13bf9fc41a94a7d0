"""headrace: event-driven text classification on Apache Kafka.

``headrace.connect()`` and ``headrace.connect_sync()`` are the clients; all that belongs to them is in
:mod:`headrace.client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace import client
    from headrace.client import connect, connect_sync

__all__ = ["client", "connect", "connect_sync"]

__version__: str


def __getattr__(name: str) -> object:
    # Looked up when they are asked for: the version reads the installed packages, and most commands need no client.
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("headrace")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    client = import_module("headrace.client")
    return client if name == "client" else getattr(client, name)
