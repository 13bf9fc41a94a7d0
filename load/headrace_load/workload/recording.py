"""Recordings: a workload made from the records of a live requests topic, and its rows.

A row holds the time of a request, the length of its text, and a hash of its key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from statistics import median_low
from typing import TypeVar

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.workload.spec import (
    AsTheyAre,
    Bad,
    Badness,
    Deadlines,
    FileTexts,
    MadeTexts,
    NoKeys,
    Recorded,
    RecordedKeys,
    RecordedLength,
    Workload,
    WorkloadError,
    write_workload,
)
from headrace_load.workload.texts import followed, parse_request
from headrace_schemas.codec import MAX_TEXT_BYTES
from headrace_schemas.headers import JSON, content_type, read_timeout_ms


class Row(Struct, frozen=True, omit_defaults=True):
    """One line of a recording.

    ``at`` is in seconds since the first record. ``bytes`` is the text's UTF-8, or the whole value's where it held no
    text, which ``bad`` says. ``key`` is a hash, None for a record without key; ``text`` is there when texts were kept.
    """

    at: float
    bytes: int
    key: str | None = None
    bad: bool = False
    text: str | None = None


class Recording(Struct, frozen=True, kw_only=True):
    """The rows as columns: ``at`` in seconds and ascending, ``sizes`` in bytes, ``keys`` one a row."""

    at: NDArray[np.float64]
    sizes: NDArray[np.int64]
    keys: tuple[bytes | None, ...]


def write_recording(rows: list[Row], path: Path) -> None:
    """Write ``rows`` in the order of their time, as JSON lines."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(sorted(rows, key=lambda row: row.at)))


def read_recording(path: str) -> Recording:
    """Read what :func:`write_recording` wrote. Raises WorkloadError, also when there is no row."""
    try:
        rows = msgspec.json.Decoder(Row).decode_lines(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise WorkloadError(f"{path} is no recording of `headrace-load record`: {error}") from error
    at = np.array([row.at for row in rows], dtype=np.float64)
    if not len(at) or at[0] < 0 or bool(np.any(np.diff(at) < 0)):
        raise WorkloadError(f"{path}: a recording has at least one row, and times from 0 that ascend")
    return Recording(
        at=at,
        sizes=np.array([row.bytes for row in rows], dtype=np.int64),
        keys=tuple(None if row.key is None else row.key.encode() for row in rows),
    )


SLACK_S = 10.0
"""How much longer than the recording its time stamps may span, because fetches and clocks differ a little."""

WARM_UP_S = 5.0

T = TypeVar("T")


class RecordingError(Exception):
    """The recording can't be played again; the message says why and what to do."""


class Seen(Struct, frozen=True, kw_only=True):
    """What is kept of a record: its row, with the time in seconds since the epoch, and more.

    ``bad`` is the kind of rubbish, None for a request.
    """

    row: Row
    bad: Badness | None = None
    content_type: str = JSON
    timeout_ms: int | None = None


async def record(
    consumer: AIOKafkaConsumer, topic: str, out: Path, *, seconds: float, most: int, keep_texts: bool, salt: bytes
) -> Path:
    """Follow ``topic`` for ``seconds`` or ``most`` records and write ``out``.toml and .jsonl; return the former's path.

    ``consumer`` is started and has no group. Arrivals are the records' time stamps. Of a key only a hash with ``salt``
    is kept: take a random one of at most 64 bytes and throw it away, and nobody finds keys by trying. Without
    ``keep_texts`` only lengths are kept. Raises RecordingError, and WorkloadError for a topic that does not exist.
    """
    loop = asyncio.get_running_loop()
    seen: list[Seen] = []
    async with aclosing(followed(consumer, topic)) as chunks:
        await anext(chunks)  # it has its place
        begun = loop.time()
        async for chunk in chunks:
            seen += [_seen(each, salt, keep_text=keep_texts) for each in chunk[: most - len(seen)]]
            if len(seen) >= most or loop.time() - begun >= seconds:
                break
    span = _span(seen, topic, loop.time() - begun)
    first = min(each.row.at for each in seen)
    file = out.with_suffix(".jsonl")
    write_recording([msgspec.structs.replace(each.row, at=round(each.row.at - first, 3)) for each in seen], file)
    workload = _workload(seen, span, file.name, keep_texts=keep_texts)
    written = out.with_suffix(".toml")
    write_workload(workload, written, f"{len(seen)} requests in {span:.1f} s, recorded from {topic}.")
    return written


def _seen(record: ConsumerRecord, salt: bytes, *, keep_text: bool) -> Seen:
    at = record.timestamp / 1000
    key = None if record.key is None else hashlib.blake2b(record.key, key=salt, digest_size=8).hexdigest()
    request = parse_request(record.value, record.headers)
    if isinstance(request, str):
        return Seen(row=Row(at, min(len(record.value or b""), MAX_TEXT_BYTES), key, bad=True), bad=request)
    text = request.text
    return Seen(
        row=Row(at, len(text.encode()), key, text=text if keep_text else None),
        content_type=content_type(record.headers),
        timeout_ms=read_timeout_ms(record.headers),
    )


def _span(seen: Sequence[Seen], topic: str, took_s: float) -> float:
    """Seconds from the first time stamp to the last. Raises RecordingError if they can't be played."""
    if all(each.bad for each in seen):
        kinds = ", ".join(sorted({str(each.bad) for each in seen}))
        found = f"none of the {len(seen)} records is a request ({kinds})" if seen else "no record came"
        raise RecordingError(f"{topic}: {found} in {took_s:.0f} s. Is it the requests topic, and is it busy?")
    stamps = [each.row.at for each in seen]
    span = max(stamps) - min(stamps)
    if not span:
        raise RecordingError(f"{topic}: all that came in {took_s:.0f} s bears one time stamp. Record for longer.")
    if span > took_s + SLACK_S:
        raise RecordingError(
            f"{topic}: what came within {took_s:.0f} s bears time stamps over {span:.0f} s, so they don't say when it "
            "was sent. Set message.timestamp.type=LogAppendTime on the topic and record again."
        )
    return span


def _workload(seen: Sequence[Seen], span: float, path: str, *, keep_texts: bool) -> Workload:
    good = [each for each in seen if each.bad is None]
    kinds = sorted({each.bad for each in seen if each.bad is not None})
    timeouts = [each.timeout_ms for each in good if each.timeout_ms is not None]
    typical = max(1, median_low([each.row.bytes for each in good]))
    warm_up = round(min(WARM_UP_S, span / 5), 3)
    found = Workload(
        arrivals=Recorded(path=path),
        texts=FileTexts(path=path) if keep_texts else MadeTexts(bytes=typical),
        lengths=AsTheyAre() if keep_texts else RecordedLength(path=path),
        keys=RecordedKeys(path=path) if any(each.row.key for each in seen) else NoKeys(),
        warm_up=warm_up,
        seconds=round(span - warm_up + 0.001, 3),  # the last request is in it: time stamps are whole milliseconds
        deadlines=Deadlines(timeout_ms=_commonest(timeouts), share=len(timeouts) / len(good)) if timeouts else None,
        bad=Bad(share=1 - len(good) / len(seen), kinds=tuple(kinds)) if kinds else None,
    )
    kind = _commonest([each.content_type for each in good])
    return msgspec.convert({**msgspec.to_builtins(found), "content_type": kind}, Workload)


def _commonest(found: Sequence[T]) -> T:
    return Counter(found).most_common(1)[0][0]
