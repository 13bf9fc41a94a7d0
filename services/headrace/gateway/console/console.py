"""The console as one object: its routes under /console, from what is passed in, and its end.

The gateway needs :meth:`Console.routes` alone. Every endpoint stands in :meth:`Console.endpoints` with the roles that
it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from headrace.core.clock import Clock
from headrace.gateway.calls import BodyReader, json_response
from headrace.gateway.console import access, assets
from headrace.gateway.console.access import (
    ANY,
    Authorize,
    Call,
    Caller,
    Endpoint,
    Guard,
    Session,
    Sessions,
)
from headrace.gateway.console.comparison import Comparison
from headrace.gateway.console.compression import Compression
from headrace.gateway.console.doubts import Search, in_child
from headrace.gateway.console.keys import KeysAndUsage
from headrace.gateway.console.labelling import Labelling
from headrace.gateway.console.letters import DeadLetters
from headrace.gateway.console.live import Feed, LogSampler
from headrace.gateway.console.models import ModelsView
from headrace.gateway.console.producer import OpenProducer
from headrace.gateway.console.trials import Trials
from headrace.gateway.console.versions import Versions
from headrace.gateway.guessing import address_of
from headrace.gateway.origin import OriginRules
from headrace.gateway.problems import ProblemError, busy
from headrace.kafka.interface import Cluster

if TYPE_CHECKING:
    from headrace.config import Settings


class Login(msgspec.Struct, frozen=True):
    """The body of a login: an API key's token."""

    token: str


class Me(msgspec.Struct, frozen=True):
    """Who is logged in, and the token that the page sends with a change."""

    name: str
    roles: tuple[str, ...]
    csrf: str


class Console:
    """The parts of the console. An async context manager: at its end everything is closed."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        clock: Clock,
        *,
        authorize: Authorize,
        hosts: Collection[str] | None = access.LOCAL_HOSTS,
        randomness: Callable[[int], str] = access.random_text,
        admits: Callable[[str, str], object] = lambda _token, _address: None,
        search: Search = in_child,
    ) -> None:
        names = settings.topics.names()
        # Raises ProblemError where too many wrong tokens came from an address.
        self._admits = admits
        self._sessions = Sessions(authorize, clock, randomness, settings.gateway.session_secret)
        bodies = BodyReader(access.MAX_BODY_BYTES, settings.gateway.body_timeout, access.MAX_HELD_BYTES)
        self._guard = Guard(self._sessions, OriginRules(hosts), bodies)
        self._producer = OpenProducer(cluster)
        self._models = ModelsView(cluster, names.models, settings.worker.model_name, self._producer)
        self._trials = Trials(cluster, settings, clock, self._models)
        self._versions = Versions(cluster, settings, clock, self._models)
        self._compression = Compression(settings, self._models)
        self._comparison = Comparison(cluster, settings, self._models)
        self._letters = DeadLetters(cluster, settings)
        self._labelling = Labelling(cluster, settings, clock, self._models, self._producer, search)
        self._keys = KeysAndUsage(cluster, settings, clock, self._producer)
        self._feed = Feed(
            lambda: LogSampler(cluster, names.requests, names.results, clock),
            self._models.moves_if_changed,
            lambda: self._models.following(settings.worker.model),
            clock,
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All that needs a session, with the roles that it is for."""
        return (
            Endpoint("GET", "/api/me", ANY, self._me),
            Endpoint("POST", "/api/logout", ANY, self._logout),
            Endpoint("GET", "/api/events", ANY, self._events),
            *self._labelling.endpoints(),
            *self._trials.endpoints(),
            *self._versions.endpoints(),
            *self._compression.endpoints(),
            *self._comparison.endpoints(),
            *self._letters.endpoints(),
            *self._keys.endpoints(),
        )

    def routes(self) -> list[Route | Mount]:
        """What stands under /console."""
        guard = self._guard
        return [
            Route("/console", _to_folder, include_in_schema=False),
            Mount(
                "/console",
                routes=[
                    guard.public("GET", "/", assets.page),
                    guard.public("GET", "/assets/{path:path}", assets.asset),
                    guard.public("POST", "/api/login", self._login),
                    *map(guard.route, self.endpoints),
                ],
            ),
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end_streams()
        await self._labelling.stop()
        await self._trials.stop()
        await self._keys.stop()
        await self._models.stop()
        await self._producer.stop()

    async def end_streams(self) -> None:
        """End the streams of events. A server that shuts down waits for them, and nothing else would end them."""
        await self._feed.close()

    async def _login(self, request: Request) -> Response:
        given = await self._guard.body(request, Login)
        self._admits(given.token, address_of(request.client))
        opened = self._sessions.open(given.token)
        if opened is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, "bad-key", "This is no token of an API key, or the key was revoked."
            )
        cookie, session, caller = opened
        response = json_response(_me(session, caller))
        response.set_cookie(
            access.COOKIE,
            cookie,
            max_age=int(access.SESSION_S),
            path="/console",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def _logout(self, call: Call) -> Response:
        self._sessions.close(call.session)
        response = json_response({})
        response.delete_cookie(access.COOKIE, path="/console", httponly=True, samesite="strict")
        return response

    async def _me(self, call: Call) -> Response:
        return json_response(_me(call.session, call.caller))

    async def _events(self, call: Call) -> Response:
        del call
        if self._feed.full:
            raise busy("Too many pages are open; close some, or try again later.", access.RETRY_AFTER_S)
        return StreamingResponse(
            self._feed.events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )


def _me(session: Session, caller: Caller) -> Me:
    return Me(caller.name, tuple(sorted(role.value for role in caller.roles)), session.csrf)


async def _to_folder(request: Request) -> Response:
    del request
    return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"location": "/console/"})
