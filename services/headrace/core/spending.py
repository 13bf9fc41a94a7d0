"""What a labeller may still spend: budgets by day and by month against what its processes wrote down.

Each process writes its own totals of a day. What it reserved and never settled counts as spent, so a process that died
between a call and its record costs at most that call.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import msgspec

from headrace_schemas.records import Spending


class Amount(msgspec.Struct, frozen=True):
    """Texts, and money in the unit that the prices of the settings are in."""

    texts: int = 0
    money: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.texts + other.texts, self.money + other.money)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent on a day and in a month, in UTC; None is no bound."""

    day_texts: int | None = None
    day_money: float | None = None
    month_texts: int | None = None
    month_money: float | None = None


def day_of(now_ms: int) -> str:
    """The day in UTC, YYYY-MM-DD."""
    return dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date().isoformat()


def next_day_ms(now_ms: int) -> int:
    """When the next day begins in UTC."""
    day_ms = 24 * 3600 * 1000
    return (now_ms // day_ms + 1) * day_ms


def spent(records: Iterable[Spending], labeller: str, day_or_month: str) -> Amount:
    """What ``labeller`` spent on a day (YYYY-MM-DD) or in a month (YYYY-MM), of ``records`` the last of each key."""
    total = Amount()
    for record in records:
        if record.labeller == labeller and record.day.startswith(day_or_month):
            # A record that says less than nothing would make room that nobody gave.
            total += Amount(
                max(0, record.reserved_texts, record.settled_texts),
                max(0.0, record.reserved_money, record.settled_money),
            )
    return total


def exhausted(budget: Budget, records: Iterable[Spending], labeller: str, day: str, asked: Amount) -> str | None:
    """Why ``asked`` can't be spent on ``day``, in words; None where it can."""
    known = tuple(records)
    today, month = spent(known, labeller, day), spent(known, labeller, day[:7])
    bounds = (
        ("texts a day", budget.day_texts, today.texts, asked.texts),
        ("texts a month", budget.month_texts, month.texts, asked.texts),
        ("money a day", budget.day_money, today.money, asked.money),
        ("money a month", budget.month_money, month.money, asked.money),
    )
    for what, bound, used, more in bounds:
        if bound is not None and used + more > bound:
            return f"{used:g} of {bound:g} {what} are spent, and the next call may take {more:g}"
    return None
