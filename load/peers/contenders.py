"""The contenders of the table: headrace in four ways, the echoes, and what others would write; and their backlogs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from msgspec import Struct

from headrace_load.contender import Contender, Program, WorkerProgram

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, where `load.peers` is found."""

ECHO = "echo, aiokafka"
HEADRACE = "headrace, 2 processes"
FASTSTREAM = "FastStream, PyTorch"
ONNX = ("hand loop, ONNX, 1 thread", "hand loop, ONNX, 2 threads")
"""Which of them is faster depends on what else the cores do."""


class Drained(Struct, frozen=True):
    """A contender, and the requests of a backlog that take it about three seconds on two cores."""

    contender: Contender
    requests: int


def drained(full: Path, champion: Path, exported: Path) -> tuple[Drained, ...]:
    """All of them by artifacts and the export of ``full``; the first is the one that the others are compared with."""
    return (
        Drained(faststream(exported), 9_000),
        Drained(echo(), 300_000),
        Drained(peer("echo, confluent-kafka", ("load.peers.echo_confluent",)), 300_000),
        Drained(peer("hand loop, one by one, PyTorch", ("load.peers.hand_one",), exported), 6_000),
        Drained(peer("hand loop, PyTorch, 1 thread", _BATCH, exported), 9_000),
        Drained(peer("hand loop, PyTorch, 2 threads", _BATCH, exported, threads=2), 9_000),
        Drained(peer(ONNX[0], _BATCH, exported, engine="onnx"), 12_000),
        Drained(peer(ONNX[1], _BATCH, exported, engine="onnx", threads=2), 12_000),
        Drained(peer("FastStream, ONNX", _FASTSTREAM, exported, engine="onnx"), 12_000),
        Drained(peer("Quix Streams, PyTorch", ("load.peers.quix_sink",), exported), 9_000),
        Drained(peer("bytewax, PyTorch", ("bytewax.run", "load.peers.bytewax_flow:flow"), exported), 9_000),
        Drained(peer("Pathway, PyTorch", ("load.peers.pathway_flow",), exported), 15_000),
        Drained(headrace("headrace, 1 process", full, processes=1), 200_000),
        Drained(headrace(HEADRACE, full), 300_000),
        Drained(headrace("headrace, 2 processes, champion", champion), 300_000),
        Drained(headrace("headrace, 2 processes, no model", full, backend="constant"), 300_000),
    )


def headrace(name: str, model: Path, *, processes: int = 2, backend: Literal["cpu", "constant"] = "cpu") -> Contender:
    """Workers of headrace as they are set by default."""
    worker = WorkerProgram(model=str(model.resolve()), processes=processes, backend=backend)
    return Contender(name=name, worker=worker)


def echo() -> Contender:
    """No model: the limit of the client that headrace uses."""
    return peer(ECHO, ("load.peers.echo",))


def faststream(exported: Path) -> Contender:
    """FastStream by the batch with eager PyTorch."""
    return peer(FASTSTREAM, _FASTSTREAM, exported)


def peer(
    name: str, module: tuple[str, ...], exported: Path | None = None, *, engine: str = "torch", threads: int = 1
) -> Contender:
    """A program of this folder, run by this Python. OpenMP is told the threads too: torch tells only its own thread."""
    environment = {"PYTHONPATH": str(ROOT), "ENGINE": engine, "THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if exported is not None:
        environment["MODEL"] = str(exported.resolve())
    command = (sys.executable, "-m", *module)
    return Contender(name=name, program=Program(command=command, answers="id", environment=environment))


_BATCH = ("load.peers.hand_batch",)
_FASTSTREAM = ("faststream", "run", "load.peers.faststream_batch:app")
