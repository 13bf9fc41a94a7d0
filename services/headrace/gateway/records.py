"""The texts of a call as the records that are published, within the limits of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.gateway.bodies import MAX_KEY_BYTES, ClassifyItem
from headrace.gateway.problems import ProblemError, invalid
from headrace.kafka.interface import Outgoing
from headrace_schemas.errors import IdTooLargeError, TextTooLargeError, WireError
from headrace_schemas.headers import EXPLAIN, JSON, TENANT, TIMEOUT_MS, Headers
from headrace_schemas.paths import RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest
from headrace_schemas.topics import MAX_REQUEST_BYTES

_OVERHEAD = 512
"""Bytes of a record beside its key, value and headers, and more."""


class Limits(NamedTuple):
    """What the sections of other rooms say of requests: bytes of a text and of a record."""

    max_text_bytes: int
    max_request_size: int


class RecordWriter:
    """Writes requests of ``shape``, each of at most ``max_request_size`` bytes as a record."""

    def __init__(self, shape: RequestShape, max_request_size: int) -> None:
        self.limits = Limits(shape.max_text_bytes, min(max_request_size, MAX_REQUEST_BYTES) - _OVERHEAD)
        self._encode = compile_writer(shape)

    def records(self, items: Sequence[ClassifyItem], headers: Headers) -> list[Outgoing]:
        """A record for each text. Raises ProblemError, which names the text and the limit."""
        encode, most = self._encode, self.limits.max_request_size
        records: list[Outgoing] = []
        try:
            for item in items:
                value = encode(ClassifyRequest(text=item.text, id=item.id), JSON)
                key = None if item.key is None else item.key.encode("utf-8", "surrogatepass")
                if key is not None and len(key) > MAX_KEY_BYTES:
                    raise invalid(
                        f"The key has {len(key):,} bytes.", field=f"{_at(items, records)}key", limit=MAX_KEY_BYTES
                    )
                if len(value) + (0 if key is None else len(key)) > most:
                    raise invalid(
                        "The text takes more bytes than a record may have.",
                        field=f"{_at(items, records)}text",
                        limit=most,
                    )
                records.append(Outgoing(value, key, headers))
        except WireError as error:
            raise self._refused(error, _at(items, records)) from error
        return records

    def _refused(self, error: WireError, where: str) -> ProblemError:
        field = "id" if isinstance(error, IdTooLargeError) else "text"
        limit = self.limits.max_text_bytes if isinstance(error, TextTooLargeError) else None
        return invalid(f"{where}{field} {error.message}", field=f"{where}{field}", limit=limit)


def headers_of(tenant: str | None, expires_s: float | None, *, explains: bool) -> Headers:
    """The headers of all requests of a call."""
    return (
        *(() if tenant is None else ((TENANT, tenant.encode()),)),
        *(() if expires_s is None else ((TIMEOUT_MS, b"%d" % max(1, round(expires_s * 1000))),)),
        *(((EXPLAIN, b"1"),) if explains else ()),
    )


def _at(items: Sequence[ClassifyItem], written: Sequence[Outgoing]) -> str:
    """Where the text stands that comes behind those that are written."""
    return "" if len(items) == 1 else f"texts[{len(written)}]."
