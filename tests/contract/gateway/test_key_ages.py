"""How old API keys are: told by a gateway, and an alert."""

from __future__ import annotations

from pathlib import Path

from headrace.core.clock import SystemClock
from headrace.kafka.interface import connected
from headrace.registry.compacted_topics import KeysWriter
from headrace.security.api_keys import KeyRole, make_key, revoked
from headrace_schemas.records import ApiKey
from tests.support.alerts import NEEDS_PROMTOOL, Watched, fired
from tests.support.gateways import RunningGateway
from tests.support.waiting import until

NAME = "headrace_gateway_oldest_api_key_made_timestamp_seconds"
DAY_MS = 86_400_000


@NEEDS_PROMTOOL
async def test_a_key_that_is_older_than_a_year_fires_its_alert_until_it_is_revoked(
    keyed: RunningGateway, tmp_path: Path
) -> None:
    now_ms = SystemClock().now_ms()
    watched = Watched(keyed.gateway.metrics.registry, job="headrace-gateway", epoch_s=now_ms / 1000)
    fresh = await keyed.site.add_key(KeyRole.CLIENT)
    await keyed.known(fresh)
    assert (watched.value(NAME) or 0) > now_ms / 1000 - 3600
    watched.quiet()
    _, old = make_key({KeyRole.CLIENT}, now_ms=now_ms - 400 * DAY_MS)

    async def publish(key: ApiKey) -> None:
        async with connected(keyed.site.cluster.producer()) as producer:
            await KeysWriter(producer, keyed.site.names.keys).publish([key])

    await publish(old)
    await until(lambda: watched.value(NAME) == old.created_at_ms / 1000)
    watched.under()
    fired(watched, tmp_path, "HeadraceApiKeyOld")
    await publish(revoked(old, now_ms=now_ms))
    await until(lambda: (watched.value(NAME) or 0) > now_ms / 1000 - 3600)
