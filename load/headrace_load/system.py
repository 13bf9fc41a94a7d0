"""What is loaded: a cluster, the names of its topics, and the processes that may be looked at beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from headrace.client import KafkaSettings, client_options
from headrace_schemas.topics import DEAD_LETTERS, LABELS, MODELS, REQUESTS, RESULTS, WORKERS

TOPICS = ("requests", "results", "dead_letters", "labels", "models", "workers")


class KafkaSettingsError(ValueError):
    """A setting of the section `kafka` can't be used; the message names it and says what is allowed."""


class Running(Struct, frozen=True, kw_only=True):
    """A contender that was started. ``pids`` are the roots of its process trees, ``metrics`` the URLs of /metrics."""

    pids: tuple[int, ...]
    metrics: tuple[str, ...] = ()


Start: TypeAlias = Callable[[], AbstractAsyncContextManager[Running]]
"""Starts the contender. When the block begins it is ready, where that can be known; behind the block it has ended."""


class System(Struct, frozen=True, kw_only=True):
    """Where requests are published and answers read.

    ``kafka`` holds further settings by their names in headrace's section `kafka`, as texts. ``metrics`` and
    ``worker_pids`` are of workers that somebody else runs, ``broker_pids`` of a broker on this machine; pids are the
    roots of process trees. A password may be in ``kafka``, so a file that holds a System is for its owner alone.
    """

    bootstrap: str
    requests: str
    results: str
    dead_letters: str
    labels: str
    models: str
    workers: str
    kafka: dict[str, str] = {}
    metrics: tuple[str, ...] = ()
    worker_pids: tuple[int, ...] = ()
    broker_pids: tuple[int, ...] = ()

    def kafka_settings(self) -> KafkaSettings:
        """What headrace.client.connect takes. Raises KafkaSettingsError."""
        return kafka_settings({**self.kafka, "bootstrap": self.bootstrap})

    def client_options(self) -> dict[str, Any]:
        """Arguments for a client of aiokafka itself. Raises KafkaSettingsError."""
        return client_options(self.kafka_settings())

    def environment(self) -> dict[str, str]:
        """The same, and the topics, as the `headrace` command reads it: no password is seen in a list of processes."""
        kafka = {f"HEADRACE_KAFKA__{name.upper()}": value for name, value in self.kafka.items()}
        topics = {f"HEADRACE_TOPICS__{name.upper()}": getattr(self, name) for name in TOPICS}
        return {**kafka, "HEADRACE_KAFKA__BOOTSTRAP": self.bootstrap, **topics}


def prefixed(bootstrap: str, prefix: str, **more: Any) -> System:
    """The system whose topics have their own names behind ``prefix``."""
    return System(
        bootstrap=bootstrap,
        requests=prefix + REQUESTS,
        results=prefix + RESULTS,
        dead_letters=prefix + DEAD_LETTERS,
        labels=prefix + LABELS,
        models=prefix + MODELS,
        workers=prefix + WORKERS,
        **more,
    )


def kafka_settings(values: Mapping[str, str]) -> KafkaSettings:
    """Settings of the section `kafka` from texts. Raises KafkaSettingsError."""
    fields = {field.name: field.type for field in msgspec.structs.fields(KafkaSettings)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise KafkaSettingsError(f"kafka.{name}: no such setting. Known: {', '.join(fields)}.")
        try:
            found[name] = msgspec.convert(value, fields[name], strict=False, dec_hook=lambda kind, text: kind(text))
        except msgspec.ValidationError as error:
            # The value itself is not said: it may be a secret.
            raise KafkaSettingsError(f"kafka.{name}: {error}") from error
    try:
        return KafkaSettings(**found)
    except ValueError as error:
        raise KafkaSettingsError(f"kafka: {error}") from error


def settings_of(section: str, environ: Mapping[str, str], sets: Sequence[str]) -> dict[str, str]:
    """What HEADRACE_SECTION__NAME and ``section.name=value`` give for a section, by name; the last one counts."""
    prefix = f"HEADRACE_{section.upper()}__"
    found = {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}
    for assignment in sets:
        key, _, value = assignment.partition("=")
        if key.startswith(f"{section}."):
            found[key.removeprefix(f"{section}.")] = value
    return found
