"""What answers: headrace's workers, or any other program; as data, from a TOML file.

name = "two processes"                    name = "my own loop"
[worker]                                  [program]
model = "model.safetensors"               command = ["python", "loop.py"]
processes = 2                             answers = "id"
settings = {"worker.max_batch" = "256"}
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

MASK = "***"
# A value is masked for its name, or because it is an address with a password in it.
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|auth|(^|[._-])key|api_?key|private", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/@\s]+:[^/@\s]+@")


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


def masked(contender: Contender) -> Contender:
    """What may be published of ``contender``: values that look like secrets are masked, by their name or as an address
    with a password. Results are shared and kept. A secret that stands in ``command`` is not seen for one.
    """
    if contender.program is not None:
        program = msgspec.structs.replace(contender.program, environment=_masked(contender.program.environment))
        return msgspec.structs.replace(contender, program=program)
    if contender.worker is not None:
        worker = msgspec.structs.replace(contender.worker, settings=_masked(contender.worker.settings))
        return msgspec.structs.replace(contender, worker=worker)
    return contender


def _masked(values: Mapping[str, str]) -> dict[str, str]:
    return {
        name: MASK if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) else value
        for name, value in values.items()
    }
