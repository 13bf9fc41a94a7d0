"""What was asked with each API key in a month, of all days and gateways, and with the keys of each tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from headrace_schemas.records import Usage

MONTH = r"\d{4}-(0[1-9]|1[0-2])"
"""How a month is written, in UTC."""


class Total(msgspec.Struct, frozen=True):
    """What was asked with one API key in a month."""

    api_key: str
    tenant: str | None
    calls: int
    texts: int
    text_bytes: int


class TenantTotal(msgspec.Struct, frozen=True):
    """What was asked with all keys of one tenant in a month; ``tenant`` None are the keys without one."""

    tenant: str | None
    keys: int
    calls: int
    texts: int
    text_bytes: int


def totals(usages: Iterable[Usage], month: str) -> list[Total]:
    """What was asked with each API key in ``month`` (YYYY-MM), of all days and processes, by key."""
    calls: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    tenants: dict[str, str | None] = {}
    for one in usages:
        if one.day.startswith(f"{month}-"):
            calls[one.api_key] += one.calls
            texts[one.api_key] += one.texts
            sizes[one.api_key] += one.text_bytes
            tenants[one.api_key] = one.tenant
    return [Total(id_, tenants[id_], calls[id_], texts[id_], sizes[id_]) for id_ in sorted(calls)]


def by_tenant(found: Sequence[Total]) -> list[TenantTotal]:
    """The totals of keys added up by tenant, by name, those without one last."""
    tenants = sorted({one.tenant for one in found}, key=lambda tenant: (tenant is None, tenant or ""))
    return [
        TenantTotal(
            tenant,
            len(mine),
            sum(one.calls for one in mine),
            sum(one.texts for one in mine),
            sum(one.text_bytes for one in mine),
        )
        for tenant in tenants
        for mine in [[one for one in found if one.tenant == tenant]]
    ]


def months(usages: Iterable[Usage]) -> list[str]:
    """The months of which something is known, the last first."""
    return sorted({one.day[:7] for one in usages}, reverse=True)
