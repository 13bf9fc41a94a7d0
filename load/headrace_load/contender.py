"""A contender: headrace's workers or any other program that answers. It is read from a TOML file and started.

name = "two processes"                    name = "my own loop"
[worker]                                  [program]
model = "model.safetensors"               command = ["python", "loop.py"]
processes = 2                             answers = "id"
settings = {"worker.max_batch" = "256"}
"""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Meta, Struct

from headrace.process.children import Child, child
from headrace_load.processes import found_in_time, over_ours, running
from headrace_load.target import Running, Start, System

MASK = "***"
# A value is masked because of its name, or because it is an address with a password.
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
    """Read a contender's file. A relative path of a model is relative to the file. Raises ContenderError."""
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
    """``contender`` with masked secrets, because results are shared and kept. A value is masked if its name says that
    it is a secret, or if it is an address with a password. A secret inside ``command`` is not recognized.
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


START_S = 120.0
POLL_S = 0.1


def starter(contender: Contender, system: System, *, group: str, folder: Path, wait: bool) -> Start:
    """Return a function that starts ``contender`` on ``system`` as the consumer group ``group``, with its logs in
    ``folder``.

    With ``wait`` the block begins when the contender is ready: headrace's workers say so by /readyz, another program by
    being a stable member of its group. For a program that joins no group it waits :data:`START_S`. Entering raises
    ProgramError.
    """
    # Each start has its own log, because its ports and times are read from there.
    numbers = itertools.count(1)

    @asynccontextmanager
    async def start() -> AsyncIterator[Running]:
        log = folder / f"contender-{next(numbers)}.log"
        log.unlink(missing_ok=True)  # of an earlier command
        if contender.worker is not None:
            async with _worker(contender.worker, system, group, log, wait=wait) as started:
                yield started
        elif contender.program is not None:
            async with _program(contender.program, system, group, log, wait=wait) as started:
                yield started

    return start


@asynccontextmanager
async def _worker(
    worker: WorkerProgram, system: System, group: str, log: Path, *, wait: bool
) -> AsyncIterator[Running]:
    sets = [part for key, value in worker.settings.items() for part in ("--set", f"{key}={value}")]
    options = ("--model", worker.model, "--backend", worker.backend, "--processes", str(worker.processes))
    environment = {**system.environment(), "HEADRACE_ADMIN__PORT": "0", "HEADRACE_LOG__FORMAT": "json"}
    async with running(*sets, "worker", *options, "--group", group, log=log, environment=environment) as process:
        admins = await found_in_time(process, lambda: _admins(process, worker.processes))
        if wait:
            await found_in_time(process, lambda: all(_ready(admin) for admin in admins) or None)
        yield Running(pids=(process.pid,), metrics=tuple(f"{admin}/metrics" for admin in admins), check=process.check)


@asynccontextmanager
async def _program(program: Program, system: System, group: str, log: Path, *, wait: bool) -> AsyncIterator[Running]:
    given = {
        "BOOTSTRAP": system.bootstrap,
        "REQUESTS": system.requests,
        "RESULTS": system.results,
        "GROUP": group,
    }
    environ = over_ours({**system.environment(), **given, **program.environment})
    async with child(program.command, log=log, environ=environ, orphaned=signal.SIGKILL) as process:
        if wait:
            await _settled(process, system, group)
        yield Running(pids=(process.pid,), check=process.check)


def _admins(workers: Child, count: int) -> list[str] | None:
    """The admin ports of all ``count`` workers by their log, as URLs; None while some are missing."""
    found = []
    for line in workers.printed().splitlines():
        try:
            event = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            continue  # a line that was printed past the log, or is not complete yet
        if event.get("event") == "admin.listening":
            found.append(f"http://{event['host']}:{event['port']}")
    return found if len(found) >= count else None


def _ready(admin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{admin}/readyz", timeout=5):  # noqa: S310 - our own worker's port
            return True
    except (urllib.error.URLError, OSError):
        return False


async def _settled(process: Child, system: System, group: str) -> None:
    deadline = time.monotonic() + START_S
    async with system.admin() as admin:
        while time.monotonic() < deadline:
            process.check()
            if await _stable(admin, group):
                return
            await asyncio.sleep(POLL_S)


async def _stable(admin: AIOKafkaAdminClient, group: str) -> bool:
    try:
        replies = await admin.describe_consumer_groups([group])
    except KafkaError:
        return False  # no coordinator knows the group yet
    return any(state == "Stable" and members for reply in replies for _, _, state, _, _, members, *_ in reply.groups)
