"""Everything that can be set, composed of the sections that the rooms own."""

from __future__ import annotations

import msgspec

from headrace.config.sections import AdminSettings, LogSettings, SigningSettings, StoreSettings, TopicsSettings
from headrace.inference.settings import WorkerSettings
from headrace.kafka.keeping import DeadLetterSettings
from headrace.kafka.settings import KafkaSettings
from headrace.model.places import Places, places_of
from headrace.training.gate.settings import GateSettings
from headrace.training.settings import TrainerSettings
from headrace_schemas.paths import RequestShape, compile_copy, compile_shape
from headrace_schemas.topics import MAX_REQUEST_BYTES


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each section is a frozen struct that checks its own combinations; here are those across sections.

    Raises ValueError, as every section does, naming the keys that don't go together.
    """

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicsSettings = TopicsSettings()
    requests: RequestShape = RequestShape()
    worker: WorkerSettings = WorkerSettings()
    trainer: TrainerSettings = TrainerSettings()
    gate: GateSettings = GateSettings()
    store: StoreSettings = StoreSettings()
    signing: SigningSettings = SigningSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        try:
            compile_shape(self.requests)
            compile_copy(self.requests)
        except ValueError as error:
            raise ValueError(f"requests: {error}") from error
        if self.requests.max_text_bytes > MAX_REQUEST_BYTES:
            raise ValueError(
                f"requests.max_text_bytes is {self.requests.max_text_bytes}, but the requests topic takes records of "
                f"at most {MAX_REQUEST_BYTES} bytes"
            )
        rebalance_s = self.kafka.rebalance_timeout_ms / 1000
        heartbeat_s = self.kafka.heartbeat_interval_ms / 1000
        if self.worker.revoke_timeout + heartbeat_s >= rebalance_s:
            raise ValueError(
                f"worker.revoke_timeout is {self.worker.revoke_timeout:g} s, but has to be below "
                f"{rebalance_s - heartbeat_s:g} s, or a rebalance evicts a worker that still waits for its answers: "
                f"kafka.rebalance_timeout_ms allows {rebalance_s:g} s, of which a worker may lose "
                f"kafka.heartbeat_interval_ms ({heartbeat_s:g} s) until it learns of the rebalance"
            )

    def places(self) -> Places:
        """Where versions may lie. Raises StoreError when ``trainer.store`` names no place."""
        if self.store.allowed:
            return places_of(self.store.allowed)
        return places_of((self.trainer.store,), "store.allowed, by default trainer.store")
