"""Made-up messages to a bank's help desk, for pictures of the console and for a small version that answers them."""

from __future__ import annotations

import random
from collections.abc import Iterator

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "card": (
        ("My card was", "The new card is", "A card of mine got", "The card I ordered is", "Both cards are"),
        (
            "swallowed by the machine",
            "still not in the post",
            "blocked since Monday",
            "lost on the train",
            "damaged at the chip",
        ),
    ),
    "refund": (
        (
            "I want a refund for",
            "Where is the refund for",
            "Please send back the money for",
            "The shop promised a refund for",
        ),
        (
            "the cancelled flight",
            "a parcel that never came",
            "shoes that I returned",
            "a double booking",
            "the wrong order",
        ),
    ),
    "transfer": (
        ("My transfer to", "The payment to", "A standing order to", "The money I sent to"),
        (
            "my landlord has not arrived",
            "a friend abroad takes days",
            "the wrong account must be stopped",
            "my savings was rejected",
        ),
    ),
    "login": (
        (
            "I can't log in because",
            "The app asks again and again because",
            "I am locked out since",
            "The code does not come, so",
        ),
        (
            "my phone is new",
            "the password expired",
            "the code never arrives",
            "I changed my number",
            "it says unknown device",
        ),
    ),
    "fees": (
        ("Why was I charged", "I don't understand the fee of", "Please explain the charge of", "Nobody told me about"),
        ("three euros for cash abroad", "ten euros a month", "two per cent for the exchange", "a late payment"),
    ),
}
MIXED = (
    "The card was charged twice and I want the money back",
    "A fee for a transfer that was rejected, please refund it",
    "I can't see my new card in the app",
    "The refund went to a card that is blocked",
    "Why does a transfer abroad cost so much and take so long",
    "Hello, is anybody there?",
    "Since the new phone no payment goes through",
    "I was charged for a card that I never got",
)
ENDS = ("", ".", "!", ", please help.", ". Thanks", " - second time I ask.")


def desk_texts(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """``count`` texts with their labels, the same for one seed."""
    chance = random.Random(seed)
    for _ in range(count):
        label = chance.choice(sorted(PARTS))
        begin, end = PARTS[label]
        yield f"{chance.choice(begin)} {chance.choice(end)}{chance.choice(ENDS)}", label
