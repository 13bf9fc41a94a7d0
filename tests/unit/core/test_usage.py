"""What was asked in a month, by key and by tenant."""

from headrace.core.usage import TenantTotal, Total, by_tenant, months, totals
from headrace_schemas.records import Usage


def used(api_key: str, day: str, texts: int, tenant: str | None = None, process: str = "a") -> Usage:
    return Usage(
        api_key=api_key,
        day=day,
        process=process,
        calls=1,
        texts=texts,
        text_bytes=10 * texts,
        written_at_ms=0,
        tenant=tenant,
    )


USED = [
    used("k1", "2026-11-02", 3, "shop"),
    used("k1", "2026-11-02", 4, "shop", process="b"),
    used("k2", "2026-11-30", 5, "shop"),
    used("k3", "2026-11-01", 1),
    used("k3", "2026-12-01", 100),
]


def test_days_and_gateways_are_added_up_by_key_and_other_months_left_out() -> None:
    assert totals(USED, "2026-11") == [
        Total("k1", "shop", 2, 7, 70),
        Total("k2", "shop", 1, 5, 50),
        Total("k3", None, 1, 1, 10),
    ]
    assert months(USED) == ["2026-12", "2026-11"]


def test_keys_of_a_tenant_are_added_up_and_those_without_one_come_last() -> None:
    assert by_tenant(totals(USED, "2026-11")) == [
        TenantTotal("shop", 2, 3, 12, 120),
        TenantTotal(None, 1, 1, 1, 10),
    ]
    assert by_tenant([]) == []
