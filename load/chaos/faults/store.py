"""What happens to the store of artifacts while the champion moves: it is gone, gives half a file, hangs.

Whatever is wrong, workers go on answering by the version that they have and say why; when it is mended they take the
next one up by themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace_schemas.records import ModelVersion
from load.chaos.fault import Fault
from load.chaos.faults.versions import alias, file_of, made, promote, put, refused, taken_up, workers_of
from load.chaos.registry import publish
from load.chaos.world import World

FAULTY_STORE = (sys.executable, "-m", "load.chaos.programs.faulty_store")
LOAD_TIMEOUT_S = 3.0
TRIES = 2


def fault_of(version: ModelVersion) -> Path:
    """The file that says what is wrong with an artifact of the faulty store."""
    return Path(f"{file_of(version)}.fault")


async def store_away(world: World) -> None:
    """The store is gone when the champion moves, and comes back."""
    version = made(world, "away")
    store = file_of(version).parent
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

    cut = made(world, "cut")
    told = fault_of(cut)
    told.write_text("half")
    await promote(world, cut)
    await refused(world, cut, "and the store gave")
    told.write_text("refuses")
    await refused(world, cut, "access is denied")
    told.unlink()
    await taken_up(world, cut)
    world.notes.append("each worker said what was wrong with the file, and loaded it when it was whole")


async def store_hangs(world: World) -> None:
    """Reading the artifact takes longer than a load may."""
    version = made(world, "slow")
    told = fault_of(version)
    told.write_text("hangs")
    await promote(world, version)
    await refused(world, version, f"not loaded within {LOAD_TIMEOUT_S:g} s")
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
)
