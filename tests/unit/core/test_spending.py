"""Budgets: what was reserved and never settled counts, by day and by month, and no bound is passed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.spending import Amount, Budget, day_of, exhausted, next_day_ms, spent
from headrace_schemas.records import Spending


def spending(day: str, *, reserved: int, settled: int, process: str = "p", labeller: str = "a") -> Spending:
    return Spending(
        labeller=labeller,
        day=day,
        process=process,
        reserved_texts=reserved,
        reserved_money=reserved / 10,
        settled_texts=settled,
        settled_money=settled / 10,
        written_at_ms=0,
    )


RECORDS = (
    spending("2026-01-31", reserved=10, settled=10),
    spending("2026-02-01", reserved=5, settled=2, process="dead"),
    spending("2026-02-01", reserved=3, settled=4, process="dearer than reserved"),
    spending("2026-02-02", reserved=7, settled=7),
    spending("2026-02-02", reserved=100, settled=100, labeller="b"),
)


def test_what_was_never_settled_counts_and_each_labeller_has_its_own() -> None:
    assert spent(RECORDS, "a", "2026-02-01") == Amount(9, 0.9)
    assert spent(RECORDS, "a", "2026-02").texts == 16
    assert spent(RECORDS, "c", "2026-02") == Amount()


def test_a_bound_that_would_be_passed_is_named() -> None:
    def why(**bounds: float) -> str | None:
        return exhausted(Budget(**bounds), RECORDS, "a", "2026-02-02", Amount(3, 0.3))

    assert why() is None
    assert why(day_texts=10, month_texts=19, day_money=1.0, month_money=2.0) is None
    assert why(day_texts=9) == "7 of 9 texts a day are spent, and the next call may take 3"
    assert "texts a month" in (why(month_texts=18) or "")
    assert "money a day" in (why(day_money=0.9) or "")
    assert "money a month" in (why(month_money=1.5) or "")


@given(st.integers(0, 4_000_000_000_000))
def test_days_are_those_of_utc_and_the_next_one_begins_within_a_day(now_ms: int) -> None:
    begins = next_day_ms(now_ms)
    assert 0 < begins - now_ms <= 24 * 3600 * 1000
    assert day_of(begins) > day_of(now_ms) == day_of(begins - 1)
