"""The static membership of a worker: an id of its own on this machine, and the same id after a crash.

When a static member returns within its session, Kafka gives it its former partitions without a rebalance. Two members
with one id throw each other out. So each worker takes the first number of its group on this machine that no other
process holds, by a lock that the system releases however the process ends.

Containers of one image often have the same host name, each with a lock folder of its own, and each would be number 0.
So the id has two more parts. One is drawn at random when a number is first taken in a folder, and kept in its lock
file. The other tells apart machines and containers that were copied with their folder.

If two processes have one id all the same, each takes the other's place for ever, and requests are answered again at
every turn. One takeover is usual: a process came back elsewhere. After the second within a minute a member gives its
static id up and joins without one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from headrace.core.errors import UserError
from headrace.process.logs import event
from headrace.security.private_folder import PrivateFolder

ALLOWED = 1
WITHIN_S = 60.0


class Takeovers(msgspec.Struct, frozen=True):
    """The moments (seconds of a clock that never runs backwards) at which another process took the id over."""

    at_s: tuple[float, ...] = ()

    def another(self, now_s: float) -> Takeovers:
        """Add a takeover at ``now_s``, and forget those of more than a minute ago."""
        return Takeovers((*(at_s for at_s in self.at_s if now_s - at_s <= WITHIN_S), now_s))

    @property
    def alternate(self) -> bool:
        """Whether to give the static id up."""
        return len(self.at_s) > ALLOWED


def static_id_given_up(group: str, member: str | None) -> None:
    """Log that this process gives up its static id, because it and another process threw each other out."""
    event(
        "member.static_id_given_up",
        level="warning",
        group=group,
        member=member,
        why="another process has the same static membership id, and both threw each other out: this one goes on "
        "without it. Its next restart will cost a rebalance",
    )


MOST_MEMBERS = 1000
DRAWN_BYTES = 6
MOUNT_ROOT, MOUNT_POINT = 3, 4
"""Fields of a line of /proc/self/mountinfo, see proc(5)."""


class NoNumberError(UserError):
    """All static ids of the group on this machine are taken."""


def machine(root: Path = Path("/")) -> str:
    """An id of this machine and container, as far as the system tells them apart: 12 hexadecimal digits.

    It stays the same until the machine restarts or the container is replaced. In a container it comes from the files
    that its engine mounts over /etc/hostname and /etc/hosts: their path on the host names the container or the pod.
    """
    found = [_read(root / name) for name in ("etc/machine-id", "proc/sys/kernel/random/boot_id")]
    for line in _read(root / "proc/self/mountinfo").splitlines():
        fields = line.split()
        if len(fields) > MOUNT_POINT and fields[MOUNT_POINT] in ("/etc/hostname", "/etc/hosts"):
            found.append(fields[MOUNT_ROOT])
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not Linux, or not to be seen from here: then other parts have to do


@contextmanager
def static_member(folder: PrivateFolder, *, host: str, machine: str, cluster: str, group: str) -> Iterator[str]:
    """Hold a number while the block runs, by a lock on a file in ``folder``, and yield the membership id.

    ``machine`` is what :func:`machine` says. ``cluster`` (its bootstrap address) and ``group`` say among whom the
    number has to be unique on ``host``. Raises NoNumberError, and UnsafeFolderError for a folder that others can write.
    """
    among = hashlib.sha256(f"{cluster}\n{group}".encode()).hexdigest()[:16]
    for number in range(MOST_MEMBERS):
        with os.fdopen(folder.open(f"{among}-{number}.lock", os.O_RDWR | os.O_CREAT), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{host}-{os.getuid()}-{number}-{machine}-{_drawn(file)}"
            return
    raise NoNumberError(
        f"{MOST_MEMBERS} members of group {group!r} run on {host} already. Set kafka.static_members to false for more."
    )


def _drawn(file: BinaryIO) -> str:
    """What was drawn when this lock file was new, or now, if it is; the caller holds its lock."""
    kept = file.read(2 * DRAWN_BYTES).decode(errors="replace")
    if re.fullmatch(f"[0-9a-f]{{{2 * DRAWN_BYTES}}}", kept):
        return kept
    drawn = secrets.token_hex(DRAWN_BYTES)
    file.seek(0)
    file.truncate()
    file.write(drawn.encode())
    file.flush()
    return drawn
