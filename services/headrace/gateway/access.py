"""Who calls, what the caller may do, and how much: API keys of classify.keys, their roles, tenants and quotas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

import msgspec

from headrace.core.clock import Clock
from headrace.core.token_bucket import TokenBucket
from headrace.gateway.guessing import Guesses
from headrace.gateway.problems import ProblemError
from headrace.security.api_keys import KeyRole, id_of, matches
from headrace_schemas.records import ApiKey

BURST_S = 10.0
"""A key without a burst of its own may take what its rate gives in so many seconds at once."""


class Identity(msgspec.Struct, frozen=True):
    """Who calls. ``tenant`` is whose answers it sees; with ``everything`` it sees all of them."""

    id: str
    roles: frozenset[KeyRole]
    tenant: str | None = None
    everything: bool = False

    def sees(self, tenant: bytes | None) -> bool:
        """Whether a request with this header ``tenant`` is the caller's to see."""
        return self.everything or tenant == (None if self.tenant is None else self.tenant.encode())


ANYBODY = Identity("", frozenset(KeyRole), everything=True)
"""Who calls a gateway that asks for no key, on its own machine."""


class CallHeaders(Protocol):
    """The headers of a call, by names in lower case."""

    def get(self, key: str, /) -> str | None: ...


class Access:
    """Decides by ``keys``, the records by id as they stand now; None asks for no key.

    ``share`` is the part of each quota that this gateway gives out, above 0 and at most 1, by which several gateways
    keep to it together. Wrong tokens count among ``guesses``.
    """

    def __init__(
        self,
        keys: Mapping[str, ApiKey] | None,
        realm: str,
        clock: Clock,
        *,
        guesses: Guesses,
        share: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._share = share
        self._guesses = guesses
        self._keys = keys
        self._challenge = {"www-authenticate": f'Bearer realm="{realm}"'}
        self._clock = clock
        self._buckets: dict[str, tuple[ApiKey, TokenBucket]] = {}

    def identify(self, headers: CallHeaders, address: str = "") -> Identity:
        """Who calls, by the token in ``Authorization: Bearer`` or ``X-API-Key``. Raises ProblemError (401), and where
        too many wrong ones came from ``address`` (429).
        """
        if self._keys is None:
            return ANYBODY
        token = _token_of(headers)
        if token is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "no-key",
                "An API key is needed: send `Authorization: Bearer TOKEN`. `headrace keys add` makes one.",
                field="Authorization",
                headers=self._challenge,
            )
        if (record := self.key_of(token, address)) is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "bad-key",
                "This API key is not known, or was revoked.",
                field="Authorization",
                headers=self._challenge,
            )
        return Identity(record.id, roles_of(record), record.tenant)

    def key_of(self, token: str, address: str = "") -> ApiKey | None:
        """The API key of ``token``, None for one that is unknown or revoked, in the same time. Raises ProblemError
        (429) where too many wrong ones came from ``address``.
        """
        if address:
            self._guesses.check(address, token)
        record = (self._keys or {}).get(id_of(token) or "")
        right = matches(token, record)
        if address and right:
            self._guesses.right(address, token)
        elif address:
            self._guesses.wrong(address)
        return record if right else None

    def holds(self, identity: Identity) -> bool:
        """Whether the caller's key is still there and was not revoked: for calls that go on."""
        if self._keys is None:
            return True
        record = self._keys.get(identity.id)
        return record is not None and record.revoked_at_ms is None

    def oldest_key_s(self) -> float:
        """When the oldest key that was not revoked was made, in seconds since the Unix epoch; NaN without one."""
        made = [one.created_at_ms for one in (self._keys or {}).values() if one.revoked_at_ms is None]
        return min(made) / 1000 if made else math.nan

    def take(self, identity: Identity, texts: int) -> None:
        """Count ``texts`` against the caller's quota. Raises ProblemError (429), which says when they are free."""
        record = None if self._keys is None else self._keys.get(identity.id)
        if record is None or record.texts_per_second is None or record.texts_per_second <= 0:
            return
        now_s = self._clock.monotonic()
        known = self._buckets.get(identity.id)
        if known is None or known[0] != record:
            burst = record.burst or max(1.0, BURST_S * record.texts_per_second)
            known = self._buckets[identity.id] = record, TokenBucket(record.texts_per_second, burst, now_s)
        share = self._share()
        # A text costs more tokens of the whole quota where a smaller part of it is this gateway's.
        if wait_s := known[1].take(texts / share, now_s):
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "quota",
                f"The quota of this API key is {record.texts_per_second:g} texts a second, of which this gateway gives "
                f"out {record.texts_per_second * share:g}.",
                field="Authorization",
                limit=record.texts_per_second,
                wait_s=wait_s,
            )


def roles_of(key: ApiKey) -> frozenset[KeyRole]:
    """The roles of a key; those that a later version knows are left out."""
    known = {role.value for role in KeyRole}
    return frozenset(KeyRole(role) for role in key.roles if role in known)


def _token_of(headers: CallHeaders) -> str | None:
    if (given := headers.get("authorization")) is not None:
        scheme, _, token = given.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    return headers.get("x-api-key")
