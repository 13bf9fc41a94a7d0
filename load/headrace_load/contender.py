"""What answers: headrace's workers, or any other program; as data, from a TOML file.

name = "two processes"                    name = "my own loop"
[worker]                                  [program]
model = "model.safetensors"               command = ["python", "loop.py"]
processes = 2                             answers = "id"
settings = {"worker.max_batch" = "256"}
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct


class ContenderError(ValueError):
    """A contender's file can't be used; the message names the file, the setting and what to do."""


class WorkerProgram(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`headrace worker` with a ``model`` (artifact or alias), a ``backend``, and further settings as `--set`."""

    model: str
    backend: Literal["cpu", "reference", "constant", "cuda"] = "cpu"
    processes: Annotated[int, Meta(gt=0)] = 1
    settings: dict[str, str] = {}


class Program(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Any program that reads requests and writes answers until SIGTERM.

    It gets BOOTSTRAP, REQUESTS, RESULTS and GROUP in its environment, beside ``environment``. It answers in
    headrace's answer log (``log``), or with JSON objects that hold the request's ``id`` (``id``).
    """

    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    answers: Literal["log", "id"] = "id"
    environment: dict[str, str] = {}


class Contender(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``worker`` and ``program``."""

    name: str
    worker: WorkerProgram | None = None
    program: Program | None = None

    def __post_init__(self) -> None:
        if (self.worker is None) == (self.program is None):
            raise ValueError("a contender has either a table [worker] or a table [program]")


def read_contender(path: Path) -> Contender:
    """Read a contender's file; a relative path of a model is from the file's folder. Raises ContenderError."""
    try:
        contender = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Contender)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ContenderError(f"{path}: {error}") from error
    worker = contender.worker
    if worker is None or not (path.parent / worker.model).exists():
        return contender
    model = str((path.parent / worker.model).resolve())
    return msgspec.structs.replace(contender, worker=msgspec.structs.replace(worker, model=model))
