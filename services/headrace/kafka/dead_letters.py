"""A record that could not be used, as its dead letter."""

from __future__ import annotations

from headrace.kafka.interface import Outgoing, Record, size_of
from headrace.kafka.keeping import Keep, keep_nothing, keep_whole, without_value
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.errors import BadHeaderError
from headrace_schemas.headers import read_attempt
from headrace_schemas.records import DeadLetter
from headrace_schemas.topics import MAX_REQUEST_BYTES


def dead_letter(
    record: Record, *, stage: str, error: str, message: str, version: str | None = None, keep: Keep = keep_whole
) -> Outgoing:
    """What ``keep`` keeps of ``record``, with headers that say where it lay, in which ``stage`` it failed and why.

    Of a record that is larger than any may be, because it was compressed on its way, nothing is kept: its letter could
    not be published. One whose value was discarded keeps at most its key and headers, and says so. An attempt header
    that can't be read counts as a first attempt.
    """
    kept = keep(record) if size_of(record) <= MAX_REQUEST_BYTES else keep_nothing(record)
    if record.discarded is not None:
        kept = without_value(kept, record.discarded.size)
    try:
        attempt = read_attempt(record.headers)
    except BadHeaderError:
        attempt = 1
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        stage=stage,
        error=error,
        message=message,
        attempt=attempt,
        version=version,
        headers=tuple(kept.headers),
    )
    return Outgoing(kept.value, kept.key, (*dead_letter_headers(letter), *kept.said))
