"""Versions that can't be loaded: a store that is gone or fails, hostile files, and rubbish as records.

Whatever is wrong, workers go on answering by the version that they have, and say why. Once it is mended they load the
next version by themselves.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save as save_arrays

from headrace.kafka.interface import Outgoing
from headrace.model.artifact import About, Canary, encode, load
from headrace.model.places import as_told
from headrace.registry.versions import version_record
from headrace_schemas.codec import encode_workers_record
from headrace_schemas.records import Attempt, MaxBatch, ModelVersion, WorkersRecord
from headrace_schemas.topics import workers_key
from load.chaos import broken
from load.chaos.faults.actions import (
    NAME,
    alias,
    file_of,
    goes_on,
    load_refused,
    made,
    promote,
    publish,
    publish_bytes,
    put,
    taken_up,
    workers_of,
)
from load.chaos.world import PARTITIONS, Fault, World, declares

FAULTS: list[Fault] = []
fault = declares(FAULTS)

FAULTY_STORE = broken.command("faulty_store")
LOAD_TIMEOUT_S = 3.0
TRIES = 2


def fault_of(version: ModelVersion) -> Path:
    """The file that says what is wrong with an artifact of the faulty store."""
    return Path(f"{file_of(version)}.fault")


@fault("store-away", "store gone while the champion moves", about="trainer", follows=True)
async def store_away(world: World) -> None:
    """The store is gone when the champion moves, and comes back."""
    version = made(world, "away")
    store = file_of(version).parent
    away = store.rename(world.folder / "elsewhere")
    await promote(world, version)
    await load_refused(world, version, "there is no such artifact")
    away.rename(store)
    await taken_up(world, version)
    world.notes.append("each worker named the file that is not there, and loaded it when it was")


@fault("store-half", "store gives half a file, then refuses", about="trainer", follows=True, program=FAULTY_STORE)
async def half_a_file(world: World) -> None:
    """Half of the artifact's file is there when the champion moves; of another the store gives half and claims all."""
    short = made(world, "short")
    whole = put(short, lambda data: data[: len(data) // 2])
    await promote(world, short)
    await load_refused(world, short, "truncated, or another file")
    put(short, lambda _: whole)
    await taken_up(world, short)

    cut = made(world, "cut")
    told = fault_of(cut)
    told.write_text("half")
    await promote(world, cut)
    await load_refused(world, cut, "and the store gave")
    told.write_text("refuses")
    await load_refused(world, cut, "access is denied")
    told.unlink()
    await taken_up(world, cut)
    world.notes.append("each worker said what was wrong with the file, and loaded it when it was whole")


@fault(
    "store-hangs",
    "store hangs while a version is read",
    about="trainer",
    follows=True,
    program=FAULTY_STORE,
    sets={"worker.load_timeout": f"{LOAD_TIMEOUT_S:g}"},
)
async def store_hangs(world: World) -> None:
    """Reading the artifact takes longer than a worker allows."""
    version = made(world, "slow")
    told = fault_of(version)
    told.write_text("hangs")
    await promote(world, version)
    await load_refused(world, version, f"not loaded within {LOAD_TIMEOUT_S:g} s")
    await world.until(
        lambda: all(len(worker.events("model.load_failed")) > TRIES for worker in workers_of(world)),
        f"{TRIES} failed loads of every worker",
    )
    other = made(world, "other")
    await promote(world, other)
    await taken_up(world, other)

    told.unlink()
    await publish(world.system, alias(version.version))
    await taken_up(world, version)
    world.notes.append("each worker gave the load up when its time was over; another version was loaded meanwhile")


TRAP = "unpickled"


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
    # A text has one label, so one of the two canaries is wrong.
    canaries = tuple(Canary("one text", label) for label in network.labels[:2])
    yield "unfit", encode(network, About(canaries=canaries)), "does not give its canary texts the labels"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@fault("artifacts-hostile", "champion moved to eight hostile files", about="trainer", follows=True)
async def hostile_artifacts(world: World) -> None:
    """The champion points at files that are no artifacts, with records that fit them; then at one that was replaced."""
    good = version_record(load(str(world.model)), name=NAME, where=as_told(str(world.model)), now_ms=0)
    files = list(hostile(world))
    for name, data, why in files:
        file = world.folder / f"{name}.safetensors"
        file.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        version = msgspec.structs.replace(good, version=name, uri=str(file), sha256=digest, size=len(data))
        await promote(world, version)
        await load_refused(world, version, why)
    assert not (world.folder / TRAP).exists(), "a worker has unpickled a file"

    replaced = made(world, "replaced")
    whole = put(replaced, lambda data: bytes(reversed(data)))
    await promote(world, replaced)
    await load_refused(world, replaced, "altered, or another file")
    put(replaced, lambda _: whole)
    await taken_up(world, replaced)
    world.notes.append(f"{len(files) + 1} files refused, each with its reason")


@fault("models-rubbish", "rubbish on the models topic", about="trainer", follows=True)
async def models_rubbish(world: World) -> None:
    """The models topic gets values that are no records, and impossible records; then an alias that leads nowhere."""
    good = made(world, "good")
    absurd = [
        msgspec.structs.replace(good, version="large", size=2**62),
        msgspec.structs.replace(good, version="negative", size=-1),
        msgspec.structs.replace(good, version="no-hash", sha256="\0" * 64),
        msgspec.structs.replace(good, version="nowhere", uri="rubbish://\0/../.."),
        msgspec.structs.replace(good, version="many-labels", labels=tuple(str(number) for number in range(50_000))),
    ]
    bytes_of = [Outgoing(value, f"rubbish-{number}".encode()) for number, value in enumerate(no_records(world))]
    await publish_bytes(world.system, world.system.models, *bytes_of, Outgoing(None, b"a tombstone of nothing"))
    # A worker that starts now reads all of it first.
    await world.workers.start("late")
    await world.until(
        lambda: all(len(one.events("models.rubbish")) >= len(bytes_of) for one in workers_of(world)),
        "every worker's word of each unreadable record",
    )
    await goes_on(world)
    for version in absurd:
        await promote(world, version)
        await load_refused(world, version, WHY[version.version])
    await publish(world.system, alias("of a version that nobody has published"))
    await world.until(
        lambda: all(worker.events("model.unknown") for worker in workers_of(world)),
        "every worker's word of the unknown version",
    )
    await goes_on(world)
    await promote(world, good)
    await taken_up(world, good)
    await world.workers.leave("late")
    world.notes.append(f"{len(bytes_of)} records were named and passed over, {len(absurd)} versions were load_refused")


@fault("workers-rubbish", "rubbish and forged attempts on the workers topic, and a worker killed", about="worker")
async def forged(world: World) -> None:
    """The workers topic gets values that are no records, and batches and attempts that no worker can have written."""
    system = world.system
    junk = [Outgoing(value, f"rubbish-{number}".encode()) for number, value in enumerate(no_records(world))]
    impossible: list[WorkersRecord] = [
        Attempt(results="a/b", partition=0, offset=0, through=1, process="forged"),
        *(MaxBatch(results=system.results, max_batch=number, raised_at_ms=0) for number in (-1, 0, 2**40)),
    ]
    junk += [Outgoing(encode_workers_record(record), b"a key of another") for record in impossible]
    attempts = [
        Attempt(
            results=system.results, partition=number, offset=0, through=2**62, process="forged", alone=True, deaths=2
        )
        for number in range(PARTITIONS)
    ]
    accusing = [Outgoing(encode_workers_record(attempt), workers_key(attempt)) for attempt in attempts]
    worker = world.any_worker()
    await publish_bytes(system, system.workers, *junk, Outgoing(None, b"a tombstone of nothing"), *accusing)
    # Killed, so that the new owner finds the forged attempts: a worker that ends cleanly would remove them.
    await worker.kill()
    await world.workers.start(worker.name)
    # A worker that starts now reads all of it first.
    await world.workers.start("late")
    await world.until(
        lambda: all(len(one.events("workers.rubbish")) >= len(junk) for one in workers_of(world)),
        "every worker's word of each record that is none",
    )
    ignored = [one for every in workers_of(world) for one in every.events("attempt.ignored")]
    assert ignored, "no worker has said that it leaves out a forged attempt"
    assert not any(one.events("records.suspected") for one in workers_of(world)), "a forged attempt was believed"
    await goes_on(world)
    await world.workers.leave("late")
    world.notes.append(f"{len(junk)} records were named and passed over, forged attempts were left out")


WHY = {
    "large": "its record says",
    "negative": "its record says",
    "no-hash": "its record says",
    "nowhere": "is refused",
    "many-labels": "has the labels",
}


def no_records(world: World) -> list[bytes]:
    """Values that are no record of the models topic, nor of the workers topic."""
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
