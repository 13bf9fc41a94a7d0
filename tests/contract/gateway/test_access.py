"""Who may do what over HTTP: every role at every endpoint, tenants, quotas, hosts and origins."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx
import msgspec
import pytest
import trustme

from headrace.gateway.endpoints import ENDPOINTS
from headrace.gateway.gateway import TlsError
from headrace.kafka.interface import connected
from headrace.registry.compacted_topics import KeysWriter, UsageLog
from headrace.security.api_keys import KeyRole, id_of
from tests.support.gateways import GatewaySite, RunningGateway
from tests.support.waiting import until


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_every_role_may_do_what_the_table_says_and_nothing_else(keyed: RunningGateway) -> None:
    tokens = {role: await keyed.site.add_key(role) for role in KeyRole}
    await keyed.known(*tokens.values())
    for endpoint in ENDPOINTS:
        path = re.sub(r"{\w+}", "0@0", endpoint.path)

        async def status(headers: dict[str, str], path: str = path, method: str = endpoint.method) -> int:
            async with keyed.http.stream(method, path, headers=headers) as reply:
                return reply.status_code

        for role, token in tokens.items():
            allowed = endpoint.roles is None or role in endpoint.roles
            found = await status(bearer(token))
            assert (found != 403) == allowed, (endpoint.method, endpoint.path, role, found)
            assert found != 401
        nobody = {
            await status({}),
            await status(bearer("hr_0123456789abcdef_" + "x" * 43)),
            await status({"authorization": f"Basic {tokens[KeyRole.CLIENT]}"}),
        }
        assert (nobody == {401}) == (endpoint.roles is not None), (endpoint.path, nobody)


async def test_a_key_sees_the_answers_of_its_tenant_alone(keyed: RunningGateway) -> None:
    shop, other, none = [await keyed.site.add_key(tenant=tenant) for tenant in ("shop", "other", None)]
    await keyed.known(shop, other, none)
    for mine in (shop, other, none):
        place = (await keyed.classify("a text", headers=bearer(mine))).json()["place"]
        for token in (shop, other, none):
            reply = await keyed.http.get(f"/v1/answers/{place}", headers=bearer(token))
            assert reply.status_code == (200 if token is mine else 404)
            unknown = await keyed.http.get("/v1/answers/0@99999", headers=bearer(token))
            if token is not mine:
                assert reply.json()["type"] == unknown.json()["type"]


async def test_a_revoked_key_is_refused_and_a_header_of_its_own_is_taken_too(keyed: RunningGateway) -> None:
    token = await keyed.site.add_key()
    await keyed.known(token)
    assert (await keyed.classify("a", headers={"x-api-key": token})).status_code == 200
    record = keyed.gateway._keys.keys[id_of(token) or ""]
    async with connected(keyed.site.cluster.producer()) as producer:
        revoked = msgspec.structs.replace(record, revoked_at_ms=1)
        await KeysWriter(producer, keyed.site.names.keys).publish([revoked])

    async def refused() -> bool:
        return (await keyed.classify("a", headers=bearer(token))).status_code == 401

    await until(refused)


async def test_a_quota_is_kept_to_and_says_when_to_come_again(keyed: RunningGateway) -> None:
    token = await keyed.site.add_key(texts_per_second=0.5, burst=3.0)
    await keyed.known(token)
    assert (await keyed.classify(["a", "b", "c"], headers=bearer(token))).status_code == 200
    reply = await keyed.classify("d", headers=bearer(token))
    assert (reply.status_code, reply.json()["type"]) == (429, "urn:headrace:problem:quota")
    assert 1 <= int(reply.headers["retry-after"]) <= 2
    assert int(reply.headers["retry-after-ms"]) <= 2000


async def test_what_is_asked_is_metered_by_key(site: GatewaySite) -> None:
    async with site.gateway(keys=True) as gateway:
        token = await site.add_key(tenant="shop")
        await gateway.known(token)
        await gateway.classify(["äh", "b"], headers=bearer(token))
        await gateway.classify("c", headers=bearer(token))
    async with connected(UsageLog(site.cluster, site.names.usage)) as log:
        [usage] = log.usages.values()
    assert (usage.api_key, usage.tenant, usage.calls, usage.texts, usage.text_bytes) == (id_of(token), "shop", 2, 3, 5)


async def test_names_that_were_made_to_point_here_and_pages_of_others_are_refused(site: GatewaySite) -> None:
    page = "https://desk.example.com"
    async with site.gateway(origins=(page,)) as gateway:
        rebound = await gateway.classify("a", headers={"host": "evil.example.com"})
        assert (rebound.status_code, rebound.json()["field"]) == (421, "Host")
        foreign = await gateway.classify("a", headers={"origin": "https://evil.example.com"})
        assert (foreign.status_code, foreign.json()["field"]) == (403, "Origin")
        allowed = await gateway.classify("a", headers={"origin": page})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page)
        own = await gateway.classify("a", headers={"origin": gateway.address})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers
        asks = {"origin": page, "access-control-request-method": "POST"}
        preflight = await gateway.http.options("/v1/classify", headers=asks)
        assert preflight.status_code == 204
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert (await gateway.http.options("/v1/classify", headers={**asks, "origin": "null"})).status_code == 403


async def test_calls_are_encrypted_where_a_certificate_is_set(site: GatewaySite, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    site.verify = ssl.create_default_context()
    authority.configure_trust(site.verify)
    # The client keeps its connection, idle: an end that waited for it would take the drain.
    async with site.gateway(tls_certfile=str(cert), tls_keyfile=str(key), drain=300.0) as gateway:
        assert gateway.address.startswith("https://")
        assert (await gateway.classify("a text")).status_code == 200
        with pytest.raises(httpx.TransportError):
            await gateway.http.get(gateway.address.replace("https", "http") + "/healthz")
    with pytest.raises(TlsError, match="tls_certfile"):
        async with site.gateway(tls_certfile=str(key), tls_keyfile=str(key)):
            pass
