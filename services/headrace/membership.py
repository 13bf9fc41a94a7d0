"""The static membership id of a worker: its own on this machine, and the same again after a crash.

Kafka gives a static member that comes back within its session the partitions that it had, without a rebalance; two
members of one id throw each other out. So each worker takes the first number of its group on this machine that no
other holds. The system lets go of a number when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.core.errors import UserError
from headrace.security.private_folder import PrivateFolder

MOST_MEMBERS = 1000


class NoNumberError(UserError):
    """There run as many members of the group here as can be told apart."""


@contextmanager
def static_member(folder: PrivateFolder, *, host: str, cluster: str, group: str) -> Iterator[str]:
    """Hold a number while the block runs, by a lock on a file in ``folder``, and yield the membership id.

    ``cluster`` (its bootstrap address) and ``group`` say among whom the number has to be unique on ``host``. Raises
    NoNumberError, and UnsafeFolderError for a folder that others can write.
    """
    among = hashlib.sha256(f"{cluster}\n{group}".encode()).hexdigest()[:16]
    for number in range(MOST_MEMBERS):
        with os.fdopen(folder.open(f"{among}-{number}.lock", os.O_RDWR | os.O_CREAT), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{host}-{os.getuid()}-{number}"
            return
    raise NoNumberError(
        f"{MOST_MEMBERS} members of group {group!r} run on {host} already. Set kafka.static_members to false for more."
    )
