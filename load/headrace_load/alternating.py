"""Several contenders in turn, round by round, so that what drifts on the machine touches all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def turns(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Whose turn it is, as (round, name): round 0 warms up, and each round begins with another contender.

    >>> turns(["a", "b"], 2)
    [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    """
    return [
        (number, names[(number + place) % len(names)]) for number in range(rounds + 1) for place in range(len(names))
    ]


async def alternating(
    names: Sequence[str], rounds: int, one: Callable[[int, str], Awaitable[T]]
) -> dict[str, tuple[T, ...]]:
    """What ``one`` (round, name) came to in the rounds that count, by name; round 0 is run and left out."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for number, name in turns(names, rounds):
        result = await one(number, name)
        if number:
            found[name].append(result)
    return {name: tuple(results) for name, results in found.items()}
