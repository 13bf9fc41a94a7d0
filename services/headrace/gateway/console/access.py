"""Who may do what in the console: sessions by cookie, roles on the server, and no call that another site could make.

A browser sends cookies by itself, so a page of another site could make calls with them. Four things are against that:
the cookie is SameSite=Strict, the header Host has to be a name of ours (a name that is rebound to our address is not),
a call that changes something has to come from our own Origin, and it has to bring the session's token in a header,
which only our own page can read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.fields import Secret
from headrace.gateway.access import roles_of
from headrace.gateway.calls import BodyReader
from headrace.gateway.origin import OriginRules
from headrace.gateway.problems import ProblemError, busy, conflict, decode_body, missing_role
from headrace.kafka.interface import KafkaError
from headrace.process.logs import event
from headrace.security.api_keys import KeyRole
from headrace_schemas.records import ApiKey

T = TypeVar("T", bound=msgspec.Struct)

COOKIE = "headrace-console"
CSRF_HEADER = "x-csrf-token"
SESSION_S = 12 * 3600.0
NONCE_BYTES = 12
LONGEST_COOKIE = 1024
MOST_SESSIONS = 1000
MAX_BODY_BYTES = 256 * 1024
MAX_HELD_BYTES = 64 * MAX_BODY_BYTES
RETRY_AFTER_S = 2.0
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
    """Who calls: the name that is recorded with labels and moves of aliases, and the roles of the API key."""

    name: str
    roles: frozenset[KeyRole]


Authorize = Callable[[str], Caller | None]
"""Finds who has a token now; None for a token that is unknown or revoked. Called at every call."""


def caller_of(key: ApiKey | None) -> Caller | None:
    """The owner of an API key, named by its note or else its id. Raises ProblemError for a tenant's key.

    The console shows the texts of all tenants, and a tenant's key is for the texts of that tenant alone.
    """
    if key is None:
        return None
    if key.tenant is not None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "tenant",
            "This API key belongs to a tenant, and the console shows texts of all of them.",
        )
    return Caller(key.note or key.id, roles_of(key))


class Session(msgspec.Struct, frozen=True):
    """A browser that logged in. ``ends_ms`` is milliseconds since the Unix epoch."""

    id: str
    token: str
    csrf: str
    ends_ms: int


class Sessions:
    """Without a ``secret`` the sessions of this process, kept in memory alone: at most MOST_SESSIONS, the oldest goes
    first.

    With one a session is in its cookie, sealed by AES-GCM, so it holds at every gateway with that secret. Who logs out
    ends it at this gateway and in the browser; a cookie that was taken from there holds elsewhere until its time is
    over, or its API key is revoked.
    """

    def __init__(
        self, authorize: Authorize, clock: Clock, randomness: Callable[[int], str], secret: Secret | None = None
    ) -> None:
        self._authorize = authorize
        self._clock = clock
        self._randomness = randomness
        self._seal = None if secret is None else AESGCM(hashlib.sha256(secret.reveal().encode()).digest())
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._closed: OrderedDict[str, None] = OrderedDict()

    def open(self, token: str) -> tuple[str, Session, Caller] | None:
        """The cookie of a new session, the session and its owner; None for a token that nobody has."""
        caller = self._authorize(token)
        if caller is None:
            return None
        cookie = self._randomness(32)
        ends_ms = self._clock.now_ms() + round(SESSION_S * 1000)
        session = Session(_hashed(cookie), token, self._randomness(32), ends_ms)
        if self._seal is not None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed = nonce + self._seal.encrypt(nonce, msgspec.msgpack.encode(session), COOKIE.encode())
            return base64.urlsafe_b64encode(sealed).decode(), session, caller
        self._sessions[session.id] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie, session, caller

    def find(self, cookie: str | None) -> tuple[Session, Caller] | None:
        """The session of a cookie and its owner as of now; None once the key is revoked."""
        if cookie is None or len(cookie) > LONGEST_COOKIE:
            return None
        session = self._sessions.get(_hashed(cookie)) if self._seal is None else self._unsealed(cookie)
        if session is None or session.id in self._closed:
            return None
        caller = self._authorize(session.token) if self._clock.now_ms() < session.ends_ms else None
        if caller is None:
            self._sessions.pop(session.id, None)
            return None
        return session, caller

    def close(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._closed[session.id] = None
        while len(self._closed) > MOST_SESSIONS:
            self._closed.popitem(last=False)

    def _unsealed(self, cookie: str) -> Session | None:
        try:
            sealed = base64.urlsafe_b64decode(cookie.encode())
            opened = self._seal.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], COOKIE.encode())  # type: ignore[union-attr]  # asked for only with a seal
            return msgspec.msgpack.decode(opened, type=Session)
        except (ValueError, InvalidTag):  # no base64, not ours, or of a version with another form
            return None


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


class Call(NamedTuple):
    """A call that passed the guard."""

    request: Request
    caller: Caller
    session: Session
    guard: Guard

    async def body(self, kind: type[T]) -> T:
        """The call's JSON as a ``kind``. Raises ProblemError where it is none, or too large."""
        return await self.guard.body(self.request, kind)


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
    """Turns endpoints into routes that let in only callers who may use them, by names that ``rules`` allow."""

    def __init__(self, sessions: Sessions, rules: OriginRules, bodies: BodyReader) -> None:
        self._sessions = sessions
        self._rules = rules
        self._bodies = bodies

    async def body(self, request: Request, kind: type[T]) -> T:
        """The JSON of a call as a ``kind``, a struct. Raises ProblemError."""
        body = await self._bodies.read(request.receive, request.headers.get("content-length"))
        try:
            forms = f"an object with {', '.join(kind.__struct_fields__)}"
            return decode_body(msgspec.json.Decoder(kind).decode, body, forms)
        finally:
            self._bodies.release(len(body))

    def public(self, method: str, path: str, handler: Public) -> Route:
        """A route for everybody; Host and Origin are still checked."""

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
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, "no-session", "Log in first: there is no session, or it is over."
            )
        session, caller = found
        if request.method not in _SAFE:
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), session.csrf.encode()):
                raise ProblemError(
                    HTTPStatus.FORBIDDEN,
                    "csrf",
                    f"The header {CSRF_HEADER} is not this session's. Load the page again.",
                    field=CSRF_HEADER,
                )
        if not caller.roles & endpoint.roles:
            raise missing_role(endpoint.roles)
        return await endpoint.handler(Call(request, caller, session, self))

    async def _answered(self, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
        try:
            self._check_site(request)
            response = await answer()
        except ProblemError as problem:
            response = problem.response()
        except ClientDisconnect:
            response = Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it
        except KafkaError as error:
            # Our own words: they name a topic and a right, and no text.
            event("console.kafka", level="warning", path=request.url.path, error=str(error))
            response = busy(f"Kafka: {error}", RETRY_AFTER_S, code="kafka-failed").response()
        except UserError as error:
            response = conflict(str(error)).response()
        response.headers.update(HEADERS)
        response.headers.setdefault("cache-control", "no-store")
        return response

    def _check_site(self, request: Request) -> None:
        self._rules.check(request.headers, needs_origin=request.method not in _SAFE)
        if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path.rstrip("/") != "/console":
            raise ProblemError(HTTPStatus.FORBIDDEN, "cross-site", "Calls of other sites are refused.")


def random_text(size: int) -> str:
    """So many random bytes, as text for a URL or header."""
    return secrets.token_urlsafe(size)
