"""Who may do what in the console, call by call, and what another site can't make a browser do."""

from __future__ import annotations

import re
import subprocess
import sys

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from headrace.config import Settings
from headrace.core.fields import Secret
from headrace.gateway.calls import json_response
from headrace.gateway.console import access
from headrace.gateway.console.access import LOCAL_HOSTS, Caller, Sessions
from headrace.gateway.console.assets import assets
from headrace.gateway.console.console import Console
from headrace.gateway.origin import OriginRules
from headrace.gateway.problems import ProblemError
from headrace.security.api_keys import KeyRole
from headrace_schemas.records import ApiKey
from tests.support.asgi import Answer, call
from tests.support.memory_kafka import MemoryCluster

C, L, O = KeyRole.CLIENT, KeyRole.LABELLER, KeyRole.OPERATOR  # noqa: E741 - three columns
ORIGIN = "http://127.0.0.1:1"

# The audit of rights: each endpoint and the roles that it lets in. A new endpoint has to be added here.
RIGHTS = {
    "GET /api/me": {C, L, O},
    "POST /api/logout": {C, L, O},
    "GET /api/events": {C, L, O},
    "GET /api/label": {L},
    "POST /api/label/next": {L},
    "POST /api/label/give": {L},
    "POST /api/label/undo": {L},
    "POST /api/try": {C, L, O},
    "GET /api/versions": {C, L, O},
    "GET /api/versions/{version}/report": {L, O},
    "GET /api/versions/{version}/curve": {C, L, O},
    "GET /api/versions/{version}/beside/{other}": {L, O},
    "POST /api/versions/certify": {O},
    "POST /api/versions/promote": {O},
    "POST /api/versions/rollback": {O},
    "POST /api/versions/pin": {O},
    "POST /api/versions/train": {O},
    "GET /api/letters": {O},
    "GET /api/letters/{at}": {O},
    "POST /api/letters/replay": {O},
    "GET /api/keys": {O},
    "POST /api/keys/add": {O},
    "POST /api/keys/revoke": {O},
    "GET /api/usage": {O},
    "GET /api/history": {O},
}


class HandClock:
    """A clock that stands until it is turned."""

    at_s = 0.0

    def now_ms(self) -> int:
        return int(self.at_s * 1000)

    def monotonic(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


class Site:
    """A console whose tokens are names of roles; what a token allows can be changed."""

    def __init__(self, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.clock = HandClock()
        self.callers = {role.value: Caller(f"a {role.value}", frozenset({role})) for role in KeyRole}
        self.callers["nothing"] = Caller("nobody much", frozenset())
        self.settings = Settings()
        self.cluster = MemoryCluster(self.clock)
        self.console = Console(
            self.cluster,
            self.settings,
            self.clock,
            authorize=self.callers.get,
            hosts=hosts,
        )
        self.app = Starlette(routes=self.console.routes())

    async def login(self, token: str, **headers: str) -> Answer:
        body = msgspec.json.encode({"token": token})
        return await call(self.app, "POST", "/console/api/login", body=body, headers={"origin": ORIGIN, **headers})

    async def session(self, token: str) -> dict[str, str]:
        """The headers of a page that is logged in."""
        answer = await self.login(token)
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return {"cookie": cookie, "origin": ORIGIN, access.CSRF_HEADER: answer.json()["csrf"]}

    async def call(self, method: str, path: str, headers: dict[str, str], body: object = {}) -> Answer:
        return await call(self.app, method, f"/console{path}", body=msgspec.json.encode(body), headers=headers)


def test_the_table_of_rights_has_every_endpoint() -> None:
    endpoints = {f"{one.method} {one.path}": set(one.roles) for one in Site().console.endpoints}
    assert endpoints == RIGHTS


@pytest.mark.parametrize("role", [*KeyRole, None])
@pytest.mark.parametrize("name", RIGHTS)
async def test_an_endpoint_lets_in_whom_it_is_for_and_nobody_else(name: str, role: KeyRole | None) -> None:
    site = Site()
    method, path = name.split()
    reached: list[str] = []

    async def handler(one: access.Call):
        reached.append(one.caller.name)
        return json_response({})

    endpoint = next(one for one in site.console.endpoints if (one.method, one.path) == (method, path))
    route = site.console._guard.route(endpoint._replace(handler=handler))
    headers = await site.session("nothing" if role is None else role.value)
    answer = await call(Starlette(routes=[route]), method, re.sub(r"{.*?}", "x", path), body=b"{}", headers=headers)
    allowed = role in RIGHTS[name]
    assert (answer.status, bool(reached)) == ((200, True) if allowed else (403, False))


@pytest.mark.parametrize("name", RIGHTS)
async def test_nobody_gets_in_without_a_session(name: str) -> None:
    method, path = name.split()
    answer = await Site().call(method, re.sub(r"{.*?}", "x", path), {"origin": ORIGIN})
    assert answer.status == 401


async def test_the_cookie_is_the_pages_alone_and_is_no_token() -> None:
    answer = await Site().login("operator")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
    assert "operator" not in cookie
    assert answer.json()["csrf"] not in cookie


async def test_a_wrong_token_opens_nothing() -> None:
    answer = await Site().login("guessed")
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


async def test_a_key_that_was_revoked_or_lost_a_role_is_felt_at_the_next_call() -> None:
    site = Site()
    headers = await site.session("operator")
    site.callers["operator"] = Caller("a client now", frozenset({C}))
    assert (await site.call("GET", "/api/me", headers)).json()["roles"] == ["client"]
    del site.callers["operator"]
    assert (await site.call("GET", "/api/me", headers)).status == 401


async def test_a_session_ends_by_logout_and_by_itself() -> None:
    site = Site()
    first, second = await site.session("client"), await site.session("client")
    assert (await site.call("POST", "/api/logout", first)).status == 200
    assert (await site.call("GET", "/api/me", first)).status == 401
    assert (await site.call("GET", "/api/me", second)).status == 200
    site.clock.at_s += access.SESSION_S
    assert (await site.call("GET", "/api/me", second)).status == 401


async def test_sessions_are_bounded_and_the_oldest_goes() -> None:
    site = Site()
    first = await site.session("client")
    for _ in range(access.MOST_SESSIONS):
        last = await site.session("client")
    assert (await site.call("GET", "/api/me", first)).status == 401
    assert (await site.call("GET", "/api/me", last)).status == 200


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({access.CSRF_HEADER: "guessed"}, "x-csrf-token"),
        ({access.CSRF_HEADER: ""}, "x-csrf-token"),
        ({"origin": "https://evil.example"}, "Origin"),
        ({"origin": "null"}, "Origin"),
        ({"origin": "http://127.0.0.1:2"}, "Origin"),
        ({"origin": ""}, "Origin"),
        ({"host": "evil.example"}, "host name"),
        ({"host": "127.0.0.1.evil.example:1"}, "host name"),
        ({"sec-fetch-site": "cross-site"}, "other sites"),
    ],
)
async def test_a_change_that_another_site_sends_is_refused(changed: dict[str, str], why: str) -> None:
    site = Site()
    headers = await site.session("client") | changed
    answer = await site.call("POST", "/api/logout", headers)
    assert answer.status == (421 if "host" in changed else 403)
    assert why in answer.json()["detail"]
    # The session is still there.
    unchanged = {name: value for name, value in headers.items() if name not in changed}
    assert (await site.call("GET", "/api/me", unchanged)).status == 200


async def test_a_name_that_was_rebound_to_our_address_reads_nothing() -> None:
    site = Site()
    headers = await site.session("client")
    for path in ("/", "/assets/app.js", "/api/me"):
        assert (await site.call("GET", path, headers | {"host": "evil.example:1"})).status == 421


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/api/me", "/assets/nothing.js"])
async def test_every_answer_forbids_inline_scripts_and_foreign_addresses(path: str) -> None:
    answer = await Site().call("GET", path, {})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["../access.py", "..%2faccess.py", "/etc/passwd", "vendor/../../console.py", "VENDORED.md"]
)
async def test_no_path_leads_out_of_the_pages(path: str) -> None:
    assert (await Site().call("GET", f"/assets/{path}", {})).status == 404


def test_the_pages_have_no_inline_script_or_style_and_no_foreign_address() -> None:
    for name, asset in assets().items():
        text = asset.content.decode()
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=|<style", text)
        if not name.startswith("vendor/"):
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"\beval\(|new Function", text), name


async def test_a_file_is_sent_again_only_where_it_changed() -> None:
    site = Site()
    first = await site.call("GET", "/assets/app.js", {})
    again = await site.call("GET", "/assets/app.js", {"if-none-match": first.headers["etag"]})
    assert (first.status, again.status, again.body) == (200, 304, b"")


async def test_a_body_that_is_too_large_or_no_json_is_refused_in_words() -> None:
    site = Site()
    large = await call(
        site.app, "POST", "/console/api/login", body=b" " * (access.MAX_BODY_BYTES + 1), headers={"origin": ORIGIN}
    )
    wrong = await call(site.app, "POST", "/console/api/login", body=b'{"token": 7}', headers={"origin": ORIGIN})
    assert (large.status, wrong.status) == (413, 422)
    assert wrong.json()["field"] == "token"


def test_a_console_loads_no_torch() -> None:
    code = "import sys, headrace.gateway.console.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_caller_is_called_as_the_keys_note_and_a_tenants_key_is_not_for_the_console() -> None:
    key = ApiKey(id="0123", hash="", roles=("labeller", "of a later release"), created_at_ms=0)
    assert access.caller_of(None) is None
    assert access.caller_of(key) == Caller("0123", frozenset({L}))
    assert access.caller_of(msgspec.structs.replace(key, note="ana")).name == "ana"
    with pytest.raises(ProblemError, match="tenant"):
        access.caller_of(msgspec.structs.replace(key, tenant="acme"))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:1", "127.0.0.1@evil.example", "[127.0.0.1", "", "127.0.0.1:1:2"]
)
async def test_both_doors_refuse_a_name_that_is_not_theirs_alike(host: str) -> None:
    request = Request({"type": "http", "headers": [(b"host", host.encode())]})
    with pytest.raises(ProblemError) as refusal:
        OriginRules(("127.0.0.1",)).check(request.headers)
    answer = await Site().call("GET", "/", {"host": host})
    assert (answer.status, answer.body) == (421, refusal.value.response().body)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]", "[::1]:8080"])
def test_a_name_of_ours_is_known_with_and_without_its_port(host: str) -> None:
    OriginRules(LOCAL_HOSTS).check({"host": host})


async def test_a_body_that_is_nested_too_deeply_is_refused_in_words() -> None:
    body = b'{"more": ' + b"[" * 100_000
    answer = await call(Site().app, "POST", "/console/api/login", body=body, headers={"origin": ORIGIN})
    assert answer.status == 400
    assert "nested too deeply" in answer.json()["detail"]


def sessions(secret: str, callers: dict[str, Caller], clock: HandClock) -> Sessions:
    return Sessions(callers.get, clock, access.random_text, Secret(secret))  # type: ignore[arg-type]


def test_a_sealed_session_holds_at_every_gateway_until_its_key_is_revoked() -> None:
    clock, callers = HandClock(), {"token": Caller("one", frozenset({O}))}
    first, second, other = (sessions(secret * 32, callers, clock) for secret in "aab")
    opened = first.open("token")
    assert opened is not None
    cookie, session, caller = opened
    assert second.find(cookie) == (session, caller)
    assert "token" not in cookie
    for wrong in (cookie[:-8] + "AAAAAAA=", "", "x", "A" * 400, "A" * 5000, "ü"):
        assert second.find(wrong) is None
    assert other.find(cookie) is None
    first.close(session)
    assert first.find(cookie) is None
    assert second.find(cookie) is not None
    clock.at_s = access.SESSION_S
    assert second.find(cookie) is None
    clock.at_s = 0.0
    del callers["token"]
    assert second.find(cookie) is None
