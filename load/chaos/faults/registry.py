"""What happens to versions on their way to workers: the store, the artifacts, the models topic.

Workers follow the champion. Whatever is wrong with the next version, they go on answering by the one that they have and
say why; when it is mended they take it up by themselves.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save as save_arrays

from headrace.kafka.interface import Outgoing
from headrace.model.artifact import About, Canary, assemble, load, save
from headrace.model.artifact_format import encode
from headrace.registry.versions import version_record
from headrace_schemas.records import ModelAlias, ModelVersion
from load.chaos.fault import Fault
from load.chaos.registry import publish, publish_bytes
from load.chaos.workers import Worker
from load.chaos.world import World

NAME = "default"
GOES_ON = 400
"""Answers that show that the version before still answers."""
FAULTY_STORE = (sys.executable, "-m", "load.chaos.programs.faulty_store")
LOAD_TIMEOUT_S = 3.0
TRIES = 2
TRAP = "unpickled"


def made(world: World, name: str, *, scheme: str = "") -> ModelVersion:
    """A version that answers as the run's own does, with another name; its file is in the run's store."""
    file = world.folder / "store" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    artifact = assemble(load(str(world.model)).network, About(parent=name))
    save(artifact, str(file))
    return version_record(artifact, name=NAME, uri=f"{scheme}{file.resolve()}", now_ms=time.time_ns() // 1_000_000)


async def promote(world: World, version: ModelVersion) -> None:
    """Publish a version and point the champion at it."""
    await publish(world.system, version, alias(version.version))


def alias(version: str) -> ModelAlias:
    """The record that moves the champion there."""
    return ModelAlias(name=NAME, alias="champion", version=version, moved_at_ms=time.time_ns() // 1_000_000)


def workers_of(world: World) -> list[Worker]:
    """The workers that run, all of which have to do what is expected."""
    return list(world.workers.running.values())


async def refused(world: World, version: ModelVersion, why: str) -> None:
    """Wait until every worker says that it can't load ``version`` and why, and see the one before answer on."""

    def said(worker: Worker) -> bool:
        failed = [event for event in worker.events("model.load_failed") if event["version"] == version.version]
        return any(why in str(event["why"]) for event in failed)

    await world.until(lambda: all(said(worker) for worker in workers_of(world)))
    assert not any(swapped_to(worker, version) for worker in workers_of(world)), "a version that was refused answers"
    await goes_on(world)


async def goes_on(world: World) -> None:
    """See that requests are answered."""
    before = world.stream.answered
    await world.until(lambda: world.stream.answered > before + GOES_ON)


async def taken_up(world: World, version: ModelVersion) -> None:
    """Wait until every worker answers by ``version``."""
    await world.until(lambda: all(swapped_to(worker, version) for worker in workers_of(world)))
    await goes_on(world)


def swapped_to(worker: Worker, version: ModelVersion) -> bool:
    """Whether the worker has swapped to ``version``, as it says."""
    return any(event["version"] == version.version for event in worker.events("model.swapped"))


def put(version: ModelVersion, change: Callable[[bytes], bytes]) -> bytes:
    """Change the bytes of an artifact where it lies; what they were."""
    file = Path(version.uri)
    data = file.read_bytes()
    file.write_bytes(change(data))
    return data


def fault_of(version: ModelVersion) -> Path:
    """The file that says what is wrong with an artifact of the faulty store."""
    return Path(f"{version.uri.removeprefix('faulty://')}.fault")


async def store_away(world: World) -> None:
    """The store is gone when the champion moves, and comes back."""
    version = made(world, "away")
    store = Path(version.uri).parent
    away = store.rename(world.folder / "elsewhere")
    await promote(world, version)
    await refused(world, version, "there is no such artifact")
    away.rename(store)
    await taken_up(world, version)
    world.notes.append("each worker named the file that is not there, and loaded it when it was")


async def half_a_file(world: World) -> None:
    """The artifact is half of itself when the champion moves; another comes by half from a store that promises all."""
    short = made(world, "short")
    whole = put(short, lambda data: data[: len(data) // 2])
    await promote(world, short)
    await refused(world, short, "truncated, or another file")
    put(short, lambda _: whole)
    await taken_up(world, short)

    cut = made(world, "cut", scheme="faulty://")
    told = fault_of(cut)
    told.write_text("half")
    await promote(world, cut)
    await refused(world, cut, "altered, or another file")
    told.write_text("refuses")
    await refused(world, cut, "access denied")
    told.unlink()
    await taken_up(world, cut)
    world.notes.append("each worker said what was wrong with the file, and loaded it when it was whole")


async def store_hangs(world: World) -> None:
    """Reading the artifact takes longer than a load may."""
    version = made(world, "slow", scheme="faulty://")
    told = fault_of(version)
    told.write_text("hangs")
    await promote(world, version)
    await refused(world, version, f"not loaded within {LOAD_TIMEOUT_S:g} s")
    await world.until(lambda: all(len(worker.events("model.load_failed")) > TRIES for worker in workers_of(world)))
    other = made(world, "other")
    await promote(world, other)
    await taken_up(world, other)

    told.unlink()
    await publish(world.system, alias(version.version))
    await taken_up(world, version)
    world.notes.append("each worker gave the load up when its time was over; another version was loaded meanwhile")


def hostile(world: World) -> Iterator[tuple[str, bytes, str]]:
    """Files that are no artifacts to answer by: a name, the bytes, and what a worker has to say."""
    whole = world.model.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    yield "pickle", pickle.dumps(Trap(world.folder / TRAP)), "no safetensors file"
    yield "long-header", (2**63).to_bytes(8, "little") + whole[8:], "no safetensors file"
    yield "deep-header", (10**5).to_bytes(8, "little") + b"[" * 10**5, "no headrace artifact"
    yield "no-description", save_arrays({"words": np.zeros(3)}), "no headrace artifact"
    header = msgspec.json.decode(whole[8 : 8 + length])
    header["words"]["shape"] = [2**40, 1]
    header["words"]["data_offsets"][1] = header["words"]["data_offsets"][0] + 2**40
    made_up = msgspec.json.encode(header)
    yield "promises", len(made_up).to_bytes(8, "little") + made_up + whole[8 + length :], "truncated or damaged"
    yield "one-bit", whole[:-1] + bytes([whole[-1] ^ 1]), "its checksum does not fit its content"
    network = load(str(world.model)).network
    # One of the two can't be what it answers.
    canaries = tuple(Canary("one text", label) for label in network.labels[:2])
    yield "unfit", encode(network, About(canaries=canaries)), "does not give its canary texts the labels"


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


async def hostile_artifacts(world: World) -> None:
    """The champion points at files that are no artifacts, with records that fit them; then at one that was replaced."""
    good = version_record(load(str(world.model)), name=NAME, uri="", now_ms=0)
    files = list(hostile(world))
    for name, data, why in files:
        file = world.folder / f"{name}.safetensors"
        file.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        version = msgspec.structs.replace(good, version=name, uri=str(file), sha256=digest, size=len(data))
        await promote(world, version)
        await refused(world, version, why)
    assert not (world.folder / TRAP).exists(), "a worker has unpickled a file"

    replaced = made(world, "replaced")
    whole = put(replaced, lambda data: bytes(reversed(data)))
    await promote(world, replaced)
    await refused(world, replaced, "altered, or another file")
    put(replaced, lambda _: whole)
    await taken_up(world, replaced)
    world.notes.append(f"{len(files) + 1} files refused, each with its reason")


async def rubbish(world: World) -> None:
    """The models topic gets what is no record, and records that say what can't be; then the alias goes astray."""
    good = made(world, "good")
    absurd = [
        msgspec.structs.replace(good, version="large", size=2**62),
        msgspec.structs.replace(good, version="negative", size=-1),
        msgspec.structs.replace(good, version="no-hash", sha256="\0" * 64),
        msgspec.structs.replace(good, version="nowhere", uri="rubbish://\0/../.."),
        msgspec.structs.replace(good, version="many-labels", labels=tuple(str(number) for number in range(50_000))),
    ]
    bytes_of = [Outgoing(value, f"rubbish-{number}".encode()) for number, value in enumerate(no_records(world))]
    await publish_bytes(world.system, *bytes_of, Outgoing(None, b"a tombstone of nothing"))
    # A worker that starts now reads all of it first.
    await world.workers.start("late")
    await world.until(lambda: all(len(one.events("models.rubbish")) >= len(bytes_of) for one in workers_of(world)))
    await goes_on(world)
    for version in absurd:
        await promote(world, version)
        await refused(world, version, WHY[version.version])
    await publish(world.system, alias("of a version that nobody has published"))
    await world.until(lambda: all(worker.events("model.unknown") for worker in workers_of(world)))
    await goes_on(world)
    await promote(world, good)
    await taken_up(world, good)
    await world.workers.leave("late")
    world.notes.append(f"{len(bytes_of)} records were named and passed over, {len(absurd)} versions were refused")


WHY = {
    "large": "its record says",
    "negative": "its record says",
    "no-hash": "its record says",
    "nowhere": "could not be",
    "many-labels": "has the labels",
}


def no_records(world: World) -> list[bytes]:
    """Values that are no record of the models topic."""
    rng = world.rng
    return [
        *(rng.randbytes(rng.randrange(1, 4000)) for _ in range(20)),
        b"",
        b"[" * 100_000,
        b'{"kind": "alien", "name": "default"}',
        b'{"kind": "alias"}',
        b'{"kind": "version", "name": 7}',
        b'{"kind": "alias", "name": "default", "alias": "champion", "version": "\xff", "moved_at_ms": 0}',
        b'{"kind": "attempt", "results": "r", "partition": 1e999}',
        b'{"kind": "alias", "name": "' + b"x" * 500_000,
    ]


FAULTS = (
    Fault(
        name="store-away",
        title="store gone while the champion moves",
        about="trainer",
        strike=store_away,
        follows=True,
        sequence=False,
    ),
    Fault(
        name="store-half",
        title="store gives half a file, then refuses",
        about="trainer",
        strike=half_a_file,
        follows=True,
        program=FAULTY_STORE,
        sequence=False,
    ),
    Fault(
        name="store-hangs",
        title="store hangs while a version is read",
        about="trainer",
        strike=store_hangs,
        follows=True,
        program=FAULTY_STORE,
        sets={"worker.load_timeout": f"{LOAD_TIMEOUT_S:g}"},
        sequence=False,
    ),
    Fault(
        name="artifacts-hostile",
        title="champion moved to eight hostile files",
        about="trainer",
        strike=hostile_artifacts,
        follows=True,
        sequence=False,
    ),
    Fault(
        name="models-rubbish",
        title="rubbish on the models topic",
        about="trainer",
        strike=rubbish,
        follows=True,
        sequence=False,
    ),
)
