"""When certificates and keys end or grow old: of files, and of what a server shows."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path

from headrace.core.errors import UserError


class CertificateError(UserError):
    """A file holds no certificate that can be read."""


def end_of(path: Path) -> float:
    """When the first of the certificates (PEM) in ``path`` ends, in seconds since the Unix epoch.

    Raises CertificateError when there is none in it.
    """
    # Imported where it is needed: a client's install is without it.
    from cryptography import x509  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate as PEM.") from error
    return min(one.not_valid_after_utc for one in found).timestamp()


async def served_end(host: str, port: int, context: ssl.SSLContext) -> float | None:
    """When the certificate of the server at ``host`` and ``port`` ends, in seconds since the Unix epoch.

    None where the server shows none. Raises OSError (ssl.SSLError among them) where no connection comes about.
    """
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown = writer.get_extra_info("peercert") or {}
        return float(ssl.cert_time_to_seconds(shown["notAfter"])) if "notAfter" in shown else None
    finally:
        writer.transport.abort()


def day(at_s: float) -> str:
    """A moment as the day that people write: 2026-01-31."""
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d}"
