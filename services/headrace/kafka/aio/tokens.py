"""OAUTHBEARER: a token for each connection, from a file or from a function of the user's own."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path

from aiokafka import conn as their_connections
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from headrace.core.errors import UserError

SETTING = "kafka.sasl_oauth_token_provider"


class NoTokenError(ConnectionError):
    """There is no token to connect with. An OSError, so that aiokafka takes it as a connection that failed."""


class _Answered(their_connections.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    """Reads the broker's answer to a token: by RFC 7628 it is empty, or says in JSON why the token is refused.

    aiokafka takes any answer for a yes, and what comes to its next request for a cluster without brokers.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:
            raise SaslAuthenticationFailed(f"the token is refused: {payload.decode(errors='replace')}")
        step: tuple[bytes, bool] | None = await super().step(payload)
        return step


their_connections.OAuthAuthenticator = _Answered


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Asks ``get`` for a token at each connection, on a thread: it may read a file or go over the network."""

    def __init__(self, get: Callable[[], str]) -> None:
        self._get = get

    async def token(self) -> str:
        """Raises NoTokenError when there is none."""
        return await asyncio.to_thread(self._get)


def file_tokens(path: str) -> Callable[[], str]:
    """Return what reads the token in ``path``. It is read each time, since what mounts such files renews them."""

    def get() -> str:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise NoTokenError(f"kafka.sasl_oauth_token_file {path} can't be read: {error}.") from error
        if not token:
            raise NoTokenError(f"kafka.sasl_oauth_token_file {path} is empty; it has to hold a token.")
        return token

    return get


def provided_tokens(name: str) -> Callable[[], str]:
    """Return what calls the function named as ``package.module:function``. Raises UserError when there is none."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{SETTING} is {name}, which can't be imported: {error}. Give it as package.module:function."
        ) from error
    if not callable(function):
        raise UserError(f"{SETTING} is {name}, which is no function.")

    def get() -> str:
        try:
            token = function()
        except Exception as error:
            raise NoTokenError(f"{SETTING} {name} gave no token: {error!r}.") from error
        if not isinstance(token, str) or not token:
            raise NoTokenError(f"{SETTING} {name} gave {type(token).__name__} where a token as str is needed.")
        return token

    return get
