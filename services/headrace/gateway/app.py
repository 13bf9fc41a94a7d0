"""From a call to its endpoint and back: hosts, origins, keys and roles are looked at here, for every endpoint alike."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.core.errors import frames_of, words_of
from headrace.gateway.access import ANYBODY, Identity
from headrace.gateway.calls import Call, trace_of
from headrace.gateway.connections import sent_whole
from headrace.gateway.guessing import address_of
from headrace.gateway.origin import OriginRules, hosts_of
from headrace.gateway.problems import ProblemError, missing_role, not_found
from headrace.kafka.interface import KafkaError, passes
from headrace.process.logs import event
from headrace.process.tracing import NO_SPAN, Kind, Span
from headrace.security.api_keys import KeyRole
from headrace_schemas.trace_context import read_trace

if TYPE_CHECKING:
    from headrace.gateway.gateway import Gateway

Handler = Callable[[Call], Awaitable[Response]]

ALLOWED_HEADERS = (
    "authorization, content-type, idempotency-key, last-event-id, prefer, traceparent, tracestate, x-api-key"
)
EXPOSED_HEADERS = "idempotent-replayed, location, preference-applied, retry-after, retry-after-ms"
PREFLIGHT_S = 600
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_PARAMETER = re.compile(r"{(\w+)}")


class Endpoint(NamedTuple):
    """``roles`` are those whose keys may call it, any one of them; None lets anybody in, without a key too.

    The rest is for the OpenAPI document: the types of the body and the reply (one, or a tuple of several), the statuses
    of success, parameters of the query and headers by name, whether a body may be a bare text or left out.
    """

    method: str
    path: str
    roles: frozenset[KeyRole] | None
    handle: Handler
    title: str
    asks: Any = None
    tells: Any = None
    statuses: tuple[int, ...] = (200,)
    query: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})
    media_type: str = "application/json"
    bare: bool = False
    optional_body: bool = False


CONSOLE = "/console"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class App:
    """The ASGI application of ``gateway``. ``console`` answers below /console, by rules of its own."""

    def __init__(self, gateway: Gateway, console: ASGIApp | None = None) -> None:
        from headrace.gateway.endpoints import ENDPOINTS  # noqa: PLC0415 - they are called with what is defined here

        self._gateway = gateway
        self._console = console
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Endpoint]]] = []
        patterns: dict[str, dict[str, Endpoint]] = {}
        for one in ENDPOINTS:
            (patterns if "{" in one.path else self._exact).setdefault(one.path, {})[one.method] = one
        for path, methods in patterns.items():
            self._patterns.append((re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", path)), methods))
        self._rules = OriginRules(hosts_of(gateway.settings), gateway.settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._console is not None and f"{scope['path']}/".startswith(f"{CONSOLE}/"):
            await self._console(scope, receive, send)
            return
        with self._span(scope) as span:
            await self._reply(scope, receive, send, span)

    def _span(self, scope: Scope) -> AbstractContextManager[Span]:
        """The span of a call, named by its endpoint once that is known. A path says who asks for what: no query."""
        if not self._gateway.tracer.on:
            return NO_SPAN
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        return self._gateway.tracer.span(method, Kind.SERVER, attributes, parent=read_trace(trace_of(scope)))

    async def _reply(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        # Of several headers with one name the first counts.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        name = "other"
        try:
            self._rules.check(headers)
            if scope["method"] == "OPTIONS":
                response = self._preflight(headers)
            else:
                endpoint, params = self._endpoint(scope)
                name = endpoint.path
                if span.recorded:
                    span.rename(f"{scope['method']} {name}")
                    span.set({"http.route": name})
                identity = self._identify(endpoint, headers, scope)
                response = await self._answer(endpoint, Call(self._gateway, scope, receive, headers, identity, params))
        except ProblemError as problem:
            self._gateway.metrics.refused(problem.code)
            response = problem.response()
        except ClientDisconnect:
            return
        response.raw_headers.extend(_ALWAYS)
        if (origin := headers.get("origin")) is not None and origin in self._rules.origins:
            response.raw_headers.extend(
                [
                    (b"access-control-allow-origin", origin.encode("latin-1")),
                    (b"access-control-expose-headers", EXPOSED_HEADERS.encode()),
                    (b"vary", b"origin"),
                ]
            )
        self._gateway.metrics.call(name, response.status_code)
        if span.recorded:
            span.set({"http.response.status_code": response.status_code})
            if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.fail(str(response.status_code))
        whole = type(response) is Response
        if not (whole and sent_whole(send, response.status_code, response.raw_headers, bytes(response.body))):
            await response(scope, receive, send)

    def _identify(self, endpoint: Endpoint, headers: Mapping[str, str], scope: Scope) -> Identity:
        if endpoint.roles is None:
            return ANYBODY
        identity = self._gateway.access.identify(headers, address_of(scope.get("client")))
        if not endpoint.roles & identity.roles:
            raise missing_role(endpoint.roles)
        return identity

    async def _answer(self, endpoint: Endpoint, call: Call) -> Response:
        try:
            return await endpoint.handle(call)
        except KafkaError as error:
            # What a broker says names topics and settings, which are not for every caller.
            event("gateway.kafka_failed", level="warning", endpoint=endpoint.path, error=str(error))
            if passes(error):
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "kafka-failed",
                    "Kafka did not do what was needed; its reason is in this gateway's log.",
                    wait_s=self._gateway.wait_s,
                ) from error
            raise ProblemError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "kafka-refused",
                "Kafka refused what was needed; its reason is in this gateway's log.",
            ) from error
        except (ProblemError, ClientDisconnect):
            raise
        except Exception as error:
            event(
                "gateway.failed",
                level="error",
                endpoint=endpoint.path,
                error=words_of(error),
                at=frames_of(error),
            )
            raise ProblemError(
                HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "This gateway failed; its log says where."
            ) from error
        finally:
            call.release()

    def _endpoint(self, scope: Scope) -> tuple[Endpoint, Mapping[str, str]]:
        # As it was sent: an escaped slash belongs to the part that it stands in.
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        methods = self._exact.get(path)
        params: dict[str, str] = {}
        if methods is None:
            for pattern, of_pattern in self._patterns:
                if (found := pattern.fullmatch(path)) is not None:
                    methods = of_pattern
                    params = {name: unquote(value) for name, value in found.groupdict().items()}
                    break
            else:
                raise not_found("There is nothing at this path; /openapi.json says what there is.")
        endpoint = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if endpoint is None or (scope["method"] == "HEAD" and endpoint.media_type == "text/event-stream"):
            allowed = ", ".join(sorted(methods))
            raise ProblemError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method",
                f"Only {allowed} is answered here.",
                headers={"allow": allowed},
            )
        return endpoint, params

    def _preflight(self, headers: Mapping[str, str]) -> Response:
        if headers.get("origin") not in self._rules.origins:
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "method", "OPTIONS is not answered here.")
        return Response(
            status_code=HTTPStatus.NO_CONTENT,
            headers={
                "access-control-allow-methods": "GET, POST, PUT, DELETE",
                "access-control-allow-headers": ALLOWED_HEADERS,
                "access-control-max-age": str(PREFLIGHT_S),
            },
        )
