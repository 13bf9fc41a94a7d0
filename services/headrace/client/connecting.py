"""From an address, or from the settings that commands read, to a client."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from headrace.client.arguments import check_instance, fitting
from headrace.client.connection import Client
from headrace.client.errors import ArgumentError
from headrace.core.fields import Addresses, Topic
from headrace.core.fields import Place as PathText
from headrace.core.printable import given_as
from headrace.core.resume import LARGEST_MAX_BATCH
from headrace.kafka.interface import Cluster
from headrace.kafka.settings import KafkaSettings
from headrace_schemas.paths import RequestShape


def connect(
    bootstrap: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    kafka: KafkaSettings | None = None,
    requests: str | None = None,
    results: str | None = None,
    max_batch: int = LARGEST_MAX_BATCH,
    shape: RequestShape | None = None,
) -> Client:
    """Return a client, which connects at the beginning of its ``async with``.

    Without ``bootstrap`` and ``kafka`` the settings are those of the commands: ``./headrace.toml`` where it is there,
    and over it the environment (``HEADRACE_KAFKA__BOOTSTRAP`` and so on). ``config`` names another file. Used of it are
    ``[kafka]``, the names of the topics, and ``[requests]``, by which requests are written so that workers can read
    them. With ``bootstrap`` (``host:port``, several with commas between) or ``kafka`` (all of the section, as TLS and
    SASL need it) neither file nor environment is read, unless ``config`` is given too.

    What is given here wins: ``bootstrap`` or ``kafka``, the topics ``requests`` and ``results``, ``shape``.
    ``max_batch`` is the largest worker.max_batch among the workers, by default the largest that there can be: a reader
    that knows a position alone looks back over four times so many answers of each partition.

    Raises ArgumentError, and SettingsError for settings that can't be used; entering the client raises a KafkaError.

    >>> async with headrace.connect() as client:
    ...     print((await client.classify("Rates rise again")).label)
    """
    found, topics, read_shape = _found(bootstrap, config, kafka, requests, results)
    return Client(
        found, requests=topics[0], results=topics[1], max_batch=max_batch, shape=read_shape if shape is None else shape
    )


def _found(
    bootstrap: str | None,
    config: str | os.PathLike[str] | None,
    kafka: KafkaSettings | None,
    requests: str | None,
    results: str | None,
) -> tuple[Cluster, tuple[str, str], RequestShape]:
    """The cluster, the two topics' names and the shape of requests."""
    # Both load when somebody connects.
    from headrace.config import file_of, load_settings  # noqa: PLC0415
    from headrace.kafka.aio import AioKafkaCluster  # noqa: PLC0415

    if kafka is not None:
        check_instance("kafka", kafka, KafkaSettings, "KafkaSettings")
        if bootstrap is not None:
            raise ArgumentError(
                "bootstrap: kafka names the cluster already (KafkaSettings.bootstrap); give one of both."
            )
    given = {
        "bootstrap": ("kafka.bootstrap", None if bootstrap is None else fitting("bootstrap", bootstrap, Addresses)),
        "requests": ("topics.requests", None if requests is None else fitting("requests", requests, Topic)),
        "results": ("topics.results", None if results is None else fitting("results", results, Topic)),
    }
    if config is None and (bootstrap is not None or kafka is not None):
        loaded = load_settings(None, {}, (), given)
    else:
        loaded = load_settings(file_of(_path(config)), os.environ, (), given)
    for variable, nearest in loaded.ignored:
        hint = "" if nearest is None else f"; did you mean {nearest}?"
        warnings.warn(f"The environment variable {variable} is no setting{hint}", stacklevel=3)
    settings = loaded.settings
    names = settings.topics.names()
    return AioKafkaCluster(kafka or settings.kafka), (names.requests, names.results), settings.requests


def _path(config: object) -> Path | None:
    if config is None:
        return None
    try:
        named = os.fspath(config)  # type: ignore[call-overload]
    except TypeError:
        raise ArgumentError(f"config: the path of a headrace.toml is needed, not {given_as(config)}.") from None
    return Path(fitting("config", named, PathText))
