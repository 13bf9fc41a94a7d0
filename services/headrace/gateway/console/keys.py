"""Keys and usage: who may come to the gateway, what each asked of it, and who did what.

A token is in the answer to the call that makes it, and nowhere else. Neither tokens nor hashes are ever listed.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from headrace.core.clock import Clock
from headrace.core.spending import day_of
from headrace.core.usage import MONTH, TenantTotal, Total, by_tenant, months, totals
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import OPERATORS, Call, Endpoint
from headrace.gateway.console.history import read_history
from headrace.gateway.console.open_log import OpenLog
from headrace.gateway.console.producer import OpenProducer
from headrace.gateway.problems import invalid, not_found
from headrace.kafka.interface import Cluster
from headrace.registry.compacted_topics import KeysLog, KeysWriter, UsageLog
from headrace.security.api_keys import TENANT, KeyRole, make_key, revoked
from headrace_schemas.records import ApiKey

if TYPE_CHECKING:
    from headrace.config import Settings


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key that is to be made. ``burst`` goes with ``texts_per_second``."""

    roles: Annotated[tuple[KeyRole, ...], Meta(min_length=1, max_length=3)]
    tenant: Annotated[str, Meta(pattern=rf"\A{TENANT}\Z")] | None = None
    texts_per_second: Annotated[float, Meta(ge=0.001, le=1e9)] | None = None
    burst: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    note: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class WhichKey(msgspec.Struct, frozen=True):
    """The key with this id."""

    id: str


class KnownKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is listed: without its hash."""

    id: str
    roles: tuple[str, ...]
    created_at_ms: int
    tenant: str | None = None
    texts_per_second: float | None = None
    burst: float | None = None
    note: str | None = None
    made_by: str | None = None
    revoked_at_ms: int | None = None
    revoked_by: str | None = None


class Keys(msgspec.Struct, frozen=True, omit_defaults=True):
    """All keys, those in use first, the newest first. ``token`` is there once, right after its key was made."""

    keys: list[KnownKey]
    made: KnownKey | None = None
    token: str | None = None


class MonthOfUsage(msgspec.Struct, frozen=True):
    """What was asked in ``month``, as `headrace usage --month` has it; ``months`` are those with usage, and
    this one.
    """

    month: str
    months: list[str]
    tenants: list[TenantTotal]
    keys: list[Total]


class KeysAndUsage:
    """Reads and writes the topic of the keys, and reads that of the usage."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Clock, producer: OpenProducer) -> None:
        names = settings.topics.names()
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._topic = names.keys
        self._keys: OpenLog[KeysLog] = OpenLog(lambda: KeysLog(cluster, names.keys))
        self._usage: OpenLog[UsageLog] = OpenLog(lambda: UsageLog(cluster, names.usage))
        self._producer = producer
        self._revoking = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/api/keys", OPERATORS, self._list),
            Endpoint("POST", "/api/keys/add", OPERATORS, self._add),
            Endpoint("POST", "/api/keys/revoke", OPERATORS, self._revoke),
            Endpoint("GET", "/api/usage", OPERATORS, self._month),
            Endpoint("GET", "/api/history", OPERATORS, self._history),
        )

    async def stop(self) -> None:
        await self._keys.stop()
        await self._usage.stop()

    async def _list(self, call: Call) -> Response:
        del call
        return json_response(Keys(await self._listed()))

    async def _add(self, call: Call) -> Response:
        asked = await call.body(NewKey)
        if asked.burst is not None and asked.texts_per_second is None:
            raise invalid("A burst needs texts a second: without a rate there is nothing for it to exceed.")
        token, record = make_key(
            set(asked.roles),
            now_ms=self._clock.now_ms(),
            tenant=asked.tenant,
            texts_per_second=asked.texts_per_second,
            burst=asked.burst,
            note=asked.note,
            by=call.caller.name,
        )
        await self._write(record)
        return json_response(Keys(await self._listed(), _known(record), token))

    async def _revoke(self, call: Call) -> Response:
        asked = await call.body(WhichKey)
        async with self._revoking:
            key = (await self._keys.get()).keys.get(asked.id)
            if key is None:
                raise not_found("There is no API key with this id.")
            if key.revoked_at_ms is None:
                await self._write(revoked(key, now_ms=self._clock.now_ms(), by=call.caller.name))
        return json_response(Keys(await self._listed()))

    async def _month(self, call: Call) -> Response:
        now = day_of(self._clock.now_ms())[:7]
        month = call.request.query_params.get("month") or now
        if not re.fullmatch(MONTH, month):
            raise invalid("A month is written as 2026-01.")
        usages = (await self._usage.get()).usages.values()
        found = totals(usages, month)
        known = sorted({now, *months(usages)}, reverse=True)
        return json_response(MonthOfUsage(month, known, by_tenant(found), found))

    async def _history(self, call: Call) -> Response:
        del call
        keys = list((await self._keys.get()).keys.values())
        return json_response(await read_history(self._cluster, self._settings, keys))

    async def _listed(self) -> list[KnownKey]:
        keys = (await self._keys.get()).keys.values()
        ordered = sorted(keys, key=lambda one: (one.revoked_at_ms is not None, -one.created_at_ms, one.id))
        return [_known(one) for one in ordered]

    async def _write(self, record: ApiKey) -> None:
        await KeysWriter(await self._producer.get(), self._topic).publish([record])


def _known(key: ApiKey) -> KnownKey:
    return KnownKey(**{name: getattr(key, name) for name in KnownKey.__struct_fields__})
