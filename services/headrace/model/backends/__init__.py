"""Ways to compute the network's integers; all give the same bits (tests/contract/backends holds them to it)."""

from headrace.model.backends.interface import Answers, Backend, open_backend

__all__ = ["Answers", "Backend", "open_backend"]
