"""Metrics of what a process stands on: ends of certificates, age of the signing key, room on disks.

They are measured once a minute on a thread of their own: a disk of another machine that hangs must not hold the event
loop, from which the metrics are served.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headrace.config import Settings
from headrace.core.errors import UserError
from headrace.model.errors import StoreError
from headrace.model.places import place_of
from headrace.process.logs import Recurring
from headrace.security.certificates import end_of
from headrace.security.private_folder import kept_folders

EVERY_S = 60.0


class Measured(msgspec.Struct, frozen=True):
    """Ends of certificates by the setting that names them, and when keys were made, both in seconds since the Unix
    epoch; free bytes of the disk of each folder.
    """

    ends: dict[str, float] = {}
    made: dict[str, float] = {}
    free: dict[str, int] = {}


def certificate_files(settings: Settings) -> dict[str, str]:
    """The certificates that the settings name, by the setting."""
    named = {
        "kafka.ssl_certfile": settings.kafka.ssl_certfile,
        "kafka.ssl_cafile": settings.kafka.ssl_cafile,
        "gateway.tls_certfile": settings.gateway.tls_certfile,
    }
    return {name: file for name, file in named.items() if file is not None}


def folders_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, Path]:
    """The folders of this machine whose disks may fill: store, temporary files, and the cache of kernels."""
    folders = {"temporary": Path(tempfile.gettempdir())}
    if (cache := next(kept_folders("", environ), None)) is not None:
        folders["cache"] = cache
    try:
        place = place_of(settings.trainer.store)
    except StoreError:  # whoever opens it says so
        return folders
    return {"store": Path("/", *place.folder), **folders} if place.scheme == "file" else folders


def nearest(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def measure(settings: Settings, environ: Mapping[str, str]) -> tuple[Measured, tuple[str, ...]]:
    """Look at all of them; what can't be looked at is left out, and said."""
    ends: dict[str, float] = {}
    made: dict[str, float] = {}
    free: dict[str, int] = {}
    unseen: list[str] = []
    for name, file in certificate_files(settings).items():
        try:
            ends[name] = end_of(Path(file))
        except UserError as error:
            unseen.append(f"{name}: {error}")
    try:
        if settings.signing.key_file is not None:
            made["signing.key_file"] = Path(settings.signing.key_file).stat().st_mtime
        for what, folder in folders_of(settings, environ).items():
            free[what] = shutil.disk_usage(nearest(folder)).free
    except OSError as error:
        unseen.append(str(error))
    return Measured(ends, made, free), tuple(unseen)


class SurroundingsMetrics(Collector):
    """Tells what was measured last; nothing before the first time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.measured = Measured()
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield three gauges, each by what it is of."""
        for name, documentation, label, values in (
            ("certificate_end_timestamp_seconds", "When a certificate ends.", "certificate", self.measured.ends),
            ("key_made_timestamp_seconds", "When the file of a key was made.", "key", self.measured.made),
            ("disk_free_bytes", "Free bytes of the disk of a folder.", "folder", self.measured.free),
        ):
            gauge = GaugeMetricFamily(f"headrace_{name}", documentation, labels=(label,))
            for of, value in values.items():
                gauge.add_metric((of,), value)
            yield gauge


@contextmanager
def surroundings(settings: Settings, environ: Mapping[str, str], registry: CollectorRegistry) -> Iterator[None]:
    """Measure now and once a minute, while the block runs."""
    metrics, over, unseen = SurroundingsMetrics(registry), threading.Event(), Recurring("surroundings.unseen")

    def run() -> None:
        while not over.is_set():
            metrics.measured, said = measure(settings, environ)
            if said:
                unseen.event(why="; ".join(said))
            over.wait(EVERY_S)

    # A daemon: a disk that hangs must not keep the process either.
    threading.Thread(target=run, name="surroundings", daemon=True).start()
    try:
        yield
    finally:
        over.set()
