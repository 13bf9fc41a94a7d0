"""API keys: random tokens of which the log keeps only the SHA-256.

A token has 256 random bits, so nobody finds it by trying, and a slow hash would protect nothing. It reads
``hr_ID_SECRET``: the id says which record to compare with, and is no secret.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection

import msgspec

from headrace_schemas.records import ApiKey

ID_BYTES = 8
SECRET_BYTES = 32
TENANT = r"[A-Za-z0-9._-]{1,249}"
"""What a tenant's name may be."""
_TOKEN = re.compile(r"hr_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NOBODYS = hashlib.sha256(b"nobody's").hexdigest()


class KeyRole(enum.StrEnum):
    """What an API key allows."""

    CLIENT = "client"
    """To have texts labelled, and to read the answers of its tenant."""
    LABELLER = "labeller"
    """To label texts, to erase labels, and to read reviews."""
    OPERATOR = "operator"
    """To move aliases."""


def make_key(
    roles: Collection[KeyRole],
    *,
    now_ms: int,
    tenant: str | None = None,
    texts_per_second: float | None = None,
    burst: float | None = None,
    note: str | None = None,
    by: str | None = None,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[str, ApiKey]:
    """A new token, which is shown once, and the record that knows it."""
    id_ = randomness(ID_BYTES).hex()
    token = f"hr_{id_}_{_text_of(randomness(SECRET_BYTES))}"
    record = ApiKey(
        id=id_,
        hash=_hash_of(token),
        roles=tuple(sorted(role.value for role in roles)),
        created_at_ms=now_ms,
        tenant=tenant,
        texts_per_second=texts_per_second,
        burst=burst,
        note=note,
        made_by=by,
    )
    return token, record


def revoked(record: ApiKey, *, now_ms: int, by: str | None = None) -> ApiKey:
    """``record`` of a key that nobody gets in with any more; one that was revoked before stays as it is."""
    if record.revoked_at_ms is not None:
        return record
    return msgspec.structs.replace(record, revoked_at_ms=now_ms, revoked_by=by)


def id_of(token: str) -> str | None:
    """The id in ``token``, None where it is no token."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else found[1]


def matches(token: str, record: ApiKey | None) -> bool:
    """Whether ``token`` is that of ``record`` and was not revoked, in the same time whatever they are."""
    same = hmac.compare_digest(_hash_of(token), _NOBODYS if record is None else record.hash)
    return same and record is not None and record.revoked_at_ms is None


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _text_of(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
