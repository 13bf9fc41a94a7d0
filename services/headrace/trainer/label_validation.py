"""Judge label records: into what the trainer knows, or to the dead letters with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.kafka.dead_letters import Keep, dead_letter
from headrace.kafka.interface import Outgoing, Record
from headrace.learning.data.known_labels import Fault, KnownLabels
from headrace.learning.data.text_keys import text_keys
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import BadKeyError, RequestTooLargeError, WireError, place
from headrace_schemas.headers import content_type
from headrace_schemas.records import LabelledText

STAGE = "label"


def judge(
    records: Sequence[Record], known: KnownLabels, *, snapped_end: int, max_text_bytes: int
) -> list[Fault | None]:
    """Take consecutive records of one partition into ``known``; why each is refused, None for those that are not.

    Offsets below ``snapped_end`` are in the last snapshot.
    """
    decoded = [_decode(record, max_text_bytes) for record in records]
    keys = iter(text_keys([label.text for label in decoded if isinstance(label, LabelledText)]))
    faults: list[Fault | None] = []
    for record, label in zip(records, decoded, strict=True):
        snapped = record.offset < snapped_end
        if isinstance(label, LabelledText):
            faults.append(known.take(record.key or b"", next(keys), label.label, snapped=snapped))
        else:
            faults.append(label)
            if record.key:
                known.remove(record.key, snapped=snapped)
    return faults


def refusal(record: Record, fault: Fault, keep: Keep) -> Outgoing:
    """The record for the dead-letters topic: what ``keep`` keeps of the label, and why it was refused."""
    message = f"{place(record.topic, record.partition, record.offset)}: {fault.message}"
    return dead_letter(record, stage=STAGE, error=fault.code, message=message, keep=keep)


def _decode(record: Record, max_text_bytes: int) -> LabelledText | Fault | None:
    """The label, None for a tombstone, or why there is neither. Only what has a key is a label or a tombstone."""
    if not record.key:
        return Fault(BadKeyError.code, "key: is the text's id, and absent")
    if record.discarded is not None:
        return Fault(RequestTooLargeError.code, f"record: has {record.discarded.size} bytes; its value is not kept")
    try:
        return decode_label(record.value, content_type(record.headers), limit=max_text_bytes)
    except WireError as error:
        return Fault(error.code, str(error))
