"""Host and Origin of a call: by which names this gateway may be called, and from pages of which origins.

A page of another site can make a browser call any address. The header Origin then names that site. A site whose own
name is made to point here (DNS rebinding) counts as our origin, so the header Host has to be a name of ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from headrace.config.gateway import GatewaySettings
from headrace.gateway.access import CallHeaders
from headrace.gateway.problems import ProblemError

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::[0-9]*)?")


class OriginRules:
    """``hosts``: the names that callers may use, None for any. ``origins``: of other pages that may call."""

    def __init__(self, hosts: Collection[str] | None, origins: Collection[str] = ()) -> None:
        self._hosts = None if hosts is None else frozenset(name.lower() for name in hosts)
        self.origins = frozenset(origins)

    def check(self, headers: CallHeaders, *, needs_origin: bool = False) -> None:
        """Refuse a foreign name and a page of a foreign origin; with ``needs_origin`` also a call that names none.

        A page is ours where its origin has the host and port of the call, as in Go's CrossOriginProtection: behind a
        proxy that encrypts, the call itself has another scheme. Raises ProblemError (421, 403).
        """
        host = headers.get("host") or ""
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise ProblemError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "host",
                "This gateway does not serve this host name; gateway.hosts lists the names that it serves.",
                field="Host",
            )
        origin = headers.get("origin")
        if (origin is None and not needs_origin) or origin in self.origins or (origin and _place_of(origin) == host):
            return
        hint = "; gateway.origins lists those that may" if self.origins else ""
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "origin",
            "The header Origin is missing." if origin is None else f"Pages of this Origin may not call here{hint}.",
            field="Origin",
        )


def is_own_machine(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def hosts_of(settings: GatewaySettings) -> frozenset[str] | None:
    """The names that callers may use; None for any."""
    if settings.hosts:
        return frozenset(settings.hosts)
    if is_own_machine(settings.host):
        return frozenset({"localhost", "127.0.0.1", "::1", settings.host.strip("[]")})
    return None


def _name_of(host: str) -> str:
    """The name in a header Host, without its port; "" where it has no such form."""
    found = _HOST.fullmatch(host.lower())
    return "" if found is None else found[1] or found[2]


def _place_of(origin: str) -> str:
    """Host and port of an origin; "" where it has no such form."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
