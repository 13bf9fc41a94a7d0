"""Publishes labelled texts to the labels topic, and tombstones that erase them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from headrace.files import DatasetError
from headrace.kafka.interface import Cluster, Outgoing, connected
from headrace.learning.data.files import Rows
from headrace.learning.data.validation import HASHINGS, MOST_NAME_BYTES, NO_WORDS, text_keys
from headrace_schemas.codec import encode_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import BY
from headrace_schemas.records import LabelledText

_ID_BYTES = 16
_CHUNK = 10_000
_RECORD_OVERHEAD = 512
"""Bytes of a batch of one record beside key and value, and more."""


class Labelled(msgspec.Struct, frozen=True):
    """A text with its true label, and the id by which both can be replaced or erased.

    Where it is known, ``source`` says how the text was chosen, ``labelled_at_ms`` when it was labelled, ``by`` by whom,
    and ``guessed`` which label ``version`` held for the likeliest.
    """

    id: str
    text: str
    label: str
    source: str | None = None
    labelled_at_ms: int | None = None
    by: str | None = None
    guessed: str | None = None
    version: str | None = None


def text_ids(texts: Sequence[str]) -> list[str]:
    """An id for each text. Texts that are the same to training get the same id, so that a label that is published again
    replaces the first. A text without words gets an empty id.
    """
    return [key[:_ID_BYTES].hex() if key != NO_WORDS else "" for key in text_keys(texts)]


def ids_by_every_hashing(texts: Sequence[str]) -> list[str]:
    """The ids that :func:`text_ids` gives ``texts`` now, or gave them in an earlier release, without the empty ones."""
    keys = (key for hashing in HASHINGS for key in text_keys(texts, hashing))
    return list(dict.fromkeys(key[:_ID_BYTES].hex() for key in keys if key != NO_WORDS))


_SECOND = "~"


def second_id(text_id: str, by: str) -> str:
    """The id of the label that ``by`` gives a text which somebody else labelled under ``text_id``.

    Both stand beside each other then: of equal texts the label of more than half of them counts.
    """
    return f"{text_id}{_SECOND}{hashlib.sha256(by.encode()).hexdigest()[:12]}"


def is_second(id_: str) -> bool:
    """Whether ``id_`` is that of a further person's label."""
    return _SECOND in id_


def is_second_of(id_: str, text_ids: Collection[str]) -> bool:
    """Whether ``id_`` is that of a further person's label of a text that has one of ``text_ids``."""
    return _SECOND in id_ and id_.rpartition(_SECOND)[0] in text_ids


def labelled(rows: Rows, ids: Sequence[str] | None = None) -> Iterator[Labelled]:
    """``rows`` with ``ids``, or with those of :func:`text_ids`."""
    for text, label, id_ in zip(rows.texts, rows.labels, ids or text_ids(rows.texts), strict=True):
        yield Labelled(id_, text, label)


def label_record(one: Labelled, largest: int = 1 << 20) -> Outgoing:
    """The record of a label. Raises DatasetError, which names the id, for a label that can't be published."""
    if not one.id:
        raise DatasetError("the label has no id, so that nothing could replace or erase it")
    try:
        label = LabelledText(
            text=one.text,
            label=one.label,
            source=one.source,
            labelled_at_ms=one.labelled_at_ms,
            by=one.by,
            guessed=one.guessed,
            version=one.version,
        )
        value, key = encode_label(label), one.id.encode()
    except (WireError, UnicodeEncodeError) as error:
        raise DatasetError(f"the label with the id {one.id!r} can't be published: {error}") from error
    if len(value) + len(key) + _RECORD_OVERHEAD > largest:
        raise DatasetError(
            f"the label with the id {one.id[:60]!r} takes {len(value) + len(key):,} bytes; kafka.max_request_size "
            f"allows {largest:,}"
        )
    return Outgoing(value, key)


def tombstone(id_: str, by: str | None = None) -> Outgoing:
    """The record that erases the label of ``id_``; ``by`` says who does, where that is known."""
    return Outgoing(None, id_.encode(), () if by is None else ((BY, by.encode("utf-8", "replace")),))


def too_long(text: str, label: str, most: int) -> str | None:
    """Which part of a labelled text is too long to be learnt, in words; None if none. ``most`` is
    trainer.max_text_bytes.
    """
    if (size := len(text.encode("utf-8", "replace"))) > most:
        return f"the text has {size:,} bytes, and trainer.max_text_bytes allows {most:,}"
    if (size := len(label.encode("utf-8", "replace"))) > MOST_NAME_BYTES:
        return f"the label's name has {size:,} bytes, and a version's record holds {MOST_NAME_BYTES:,} of all names"
    return None


async def publish_labels(
    cluster: Cluster, topic: str, *, labels: Iterable[Labelled] = (), erased: Iterable[str] = ()
) -> int:
    """Publish a record for each of ``labels`` and a tombstone for each id of ``erased``. Returns the number of records.

    Raises DatasetError for a label that the wire does not take, and a KafkaError.
    """
    total = 0
    async with connected(cluster.producer()) as producer:
        for records in _chunks(labels, erased):
            total += len(await producer.send_many(topic, records))
    return total


def _chunks(labels: Iterable[Labelled], erased: Iterable[str]) -> Iterator[list[Outgoing]]:
    def records() -> Iterator[Outgoing]:
        yield from map(label_record, labels)
        yield from map(tombstone, erased)

    waiting: list[Outgoing] = []
    for record in records():
        waiting.append(record)
        if len(waiting) == _CHUNK:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
