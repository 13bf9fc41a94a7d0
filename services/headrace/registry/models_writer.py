"""Writing to the topic classify.models: each record under the key that keeps it."""

from __future__ import annotations

from headrace.registry.compacted_log import BatchSender, CompactedWriter
from headrace_schemas.codec import encode_models_record
from headrace_schemas.records import ModelsRecord
from headrace_schemas.topics import models_key


class ModelsWriter(CompactedWriter[ModelsRecord]):
    """Appends records of classify.models."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_models_record, key=models_key)
