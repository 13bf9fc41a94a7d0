"""Who may do what in the console: sessions by cookie, roles on the server, and no call that another site could make.

A browser sends cookies by itself, so a page of another site could make calls with them. Four things are against that:
the cookie is SameSite=Strict, the header Host has to be a name of ours (a name that is rebound to our address is not),
a call that changes something has to come from our own Origin, and it has to bring the session's token in a header,
which only our own page can read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.gateway.access import roles_of
from headrace.kafka.interface import KafkaError
from headrace.process.logs import event
from headrace.security.api_keys import KeyRole
from headrace_schemas.records import ApiKey

T = TypeVar("T")

COOKIE = "headrace-console"
CSRF_HEADER = "x-csrf-token"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 1000
MAX_BODY_BYTES = 256 * 1024
RETRY_AFTER_S = 2
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

HEADERS = {
    # No inline script and no foreign address: what a text of a stranger says can't be run and can't be sent away.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_SAFE = frozenset({"GET", "HEAD"})


class Caller(msgspec.Struct, frozen=True):
    """Who calls: the name that labels and moves of aliases are recorded with, and what the API key allows."""

    name: str
    roles: frozenset[KeyRole]


Authorize = Callable[[str], Caller | None]
"""From a token to whose it is now; None for one that is unknown or revoked. Asked at every call."""


class RefusedError(Exception):
    """A call that is not done. ``detail`` is for people."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def caller_of(key: ApiKey | None) -> Caller | None:
    """Who has an API key: called by its note, or by its id. Raises RefusedError for a tenant's key.

    The console shows the texts of all tenants, so it is not for keys that are to see those of one.
    """
    if key is None:
        return None
    if key.tenant is not None:
        raise RefusedError(
            HTTPStatus.FORBIDDEN, "This API key belongs to a tenant, and the console shows texts of all of them."
        )
    return Caller(key.note or key.id, roles_of(key))


class Session(msgspec.Struct, frozen=True):
    """A browser that logged in. Its token is kept in memory alone, and dies with the process."""

    id: str
    token: str
    csrf: str
    ends_s: float


class Sessions:
    """The sessions of this process, at most MOST_SESSIONS; the oldest goes first."""

    def __init__(self, authorize: Authorize, clock: Clock, randomness: Callable[[int], str]) -> None:
        self._authorize = authorize
        self._clock = clock
        self._randomness = randomness
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def open(self, token: str) -> tuple[str, Session, Caller] | None:
        """The cookie of a new session, the session, and whose it is; None for a token that nobody has."""
        caller = self._authorize(token)
        if caller is None:
            return None
        cookie = self._randomness(32)
        session = Session(_hashed(cookie), token, self._randomness(32), self._clock.monotonic() + SESSION_S)
        self._sessions[session.id] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie, session, caller

    def find(self, cookie: str | None) -> tuple[Session, Caller] | None:
        """The session of a cookie and whose it is by now: a key that was revoked has none any more."""
        session = None if cookie is None else self._sessions.get(_hashed(cookie))
        if session is None:
            return None
        caller = self._authorize(session.token) if self._clock.monotonic() < session.ends_s else None
        if caller is None:
            del self._sessions[session.id]
            return None
        return session, caller

    def close(self, session: Session) -> None:
        self._sessions.pop(session.id, None)


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


class Call(NamedTuple):
    """A call that was let in."""

    request: Request
    caller: Caller
    session: Session

    async def body(self, kind: type[T]) -> T:
        """The call's JSON as a ``kind``. Raises RefusedError where it is none, or too large."""
        return await body_of(self.request, kind)


Handler = Callable[[Call], Awaitable[Response]]
Public = Callable[[Request], Awaitable[Response]]


class Endpoint(NamedTuple):
    """A method and path below /console, and the roles of which a caller needs one."""

    method: str
    path: str
    roles: frozenset[KeyRole]
    handler: Handler


ANY = frozenset(KeyRole)
LABELLERS = frozenset({KeyRole.LABELLER})
OPERATORS = frozenset({KeyRole.OPERATOR})


class Guard:
    """Turns endpoints into routes that let in only whom they are for. ``hosts`` None: any name."""

    def __init__(self, sessions: Sessions, hosts: Collection[str] | None) -> None:
        self._sessions = sessions
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    def public(self, method: str, path: str, handler: Public) -> Route:
        """A route for everybody; Host and Origin are looked at all the same."""

        async def answer(request: Request) -> Response:
            return await self._answered(request, lambda: handler(request))

        return Route(path, answer, methods=[method], include_in_schema=False)

    def route(self, endpoint: Endpoint) -> Route:
        """A route for callers with a session and one of the endpoint's roles."""

        async def answer(request: Request) -> Response:
            return await self._answered(request, lambda: self._admitted(request, endpoint))

        return Route(endpoint.path, answer, methods=[endpoint.method], include_in_schema=False)

    async def _admitted(self, request: Request, endpoint: Endpoint) -> Response:
        found = self._sessions.find(request.cookies.get(COOKIE))
        if found is None:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "Log in first: there is no session, or it is over.")
        session, caller = found
        if request.method not in _SAFE:
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), session.csrf.encode()):
                raise RefusedError(
                    HTTPStatus.FORBIDDEN, f"The header {CSRF_HEADER} is not this session's. Load the page."
                )
        if not caller.roles & endpoint.roles:
            wanted = " or ".join(sorted(role.value for role in endpoint.roles))
            raise RefusedError(HTTPStatus.FORBIDDEN, f"This needs an API key with the role {wanted}.")
        return await endpoint.handler(Call(request, caller, session))

    async def _answered(self, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
        try:
            self._check_origin(request)
            response = await answer()
        except RefusedError as refused:
            response = problem(refused.status, refused.detail)
        except KafkaError as error:
            # Our own words: they name a topic and a right, and no text.
            event("console.kafka", level="warning", path=request.url.path, error=str(error))
            response = problem(HTTPStatus.SERVICE_UNAVAILABLE, f"Kafka: {error}")
            response.headers["retry-after"] = str(RETRY_AFTER_S)
        except UserError as error:
            response = problem(HTTPStatus.CONFLICT, str(error))
        response.headers.update(HEADERS)
        response.headers.setdefault("cache-control", "no-store")
        return response

    def _check_origin(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "This host name is not served here; gateway.hosts names those that are."
            )
        if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path.rstrip("/") != "/console":
            raise RefusedError(HTTPStatus.FORBIDDEN, "Calls of other sites are refused.")
        if request.method not in _SAFE and urlsplit(request.headers.get("origin", "")).netloc != host:
            raise RefusedError(HTTPStatus.FORBIDDEN, "The header Origin is not this console's own.")


def _name_of(host: str) -> str:
    """The host in a header Host, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def body_of(request: Request, kind: type[T]) -> T:
    """The JSON of a call as a ``kind``. Raises RefusedError."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MAX_BODY_BYTES:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {MAX_BODY_BYTES:,} bytes.")
    try:
        return msgspec.json.decode(bytes(read), type=kind)
    except msgspec.DecodeError as error:
        # The message names the field and the type, and no text.
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"The body can't be meant: {error}") from None


def problem(status: HTTPStatus, detail: str) -> Response:
    """Why a call is not done, as RFC 9457 has it."""
    told = {"title": status.phrase, "status": status.value, "detail": detail}
    return Response(msgspec.json.encode(told), status.value, media_type="application/problem+json")


def as_json(value: object) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def random_text(size: int) -> str:
    """So many random bytes, as text for a URL or header."""
    return secrets.token_urlsafe(size)
