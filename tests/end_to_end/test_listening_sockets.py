"""What a training on one machine listens on: every process of it is asked, while it trains."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE

import psutil

from tests.support.waiting import until

RANKS = 2
WORDS = {"praise": "good", "blame": "bad", "question": "why"}


def labelled(rows: int) -> str:
    randomness = random.Random(7)
    lines = []
    for _ in range(rows):
        word, label = randomness.choice(list(WORDS.items()))
        lines.append(
            json.dumps({"text": f"w{randomness.randrange(40)} {word} w{randomness.randrange(40)}", "label": label})
        )
    return "\n".join(lines)


def listening(process: psutil.Process) -> dict[int, list[str]]:
    """The addresses that each process of a tree listens on, TCP and UDP; a process that listens on none is left out."""
    found = {}
    for one in (process, *process.children(recursive=True)):
        try:
            sockets = one.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        if open_to := [s.laddr.ip for s in sockets if s.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)]:
            found[one.pid] = open_to
    return found


def is_connected_rank(process: psutil.Process) -> bool:
    """Whether a process is a rank with a connection. One that ends while it is asked, as helpers do, is none."""
    try:
        sockets = process.net_connections(kind="inet") if "rank" in process.cmdline() else []
    except psutil.NoSuchProcess:
        return False
    return any(s.status == psutil.CONN_ESTABLISHED for s in sockets)


async def test_a_training_on_one_machine_listens_on_the_loopback_alone_and_there_only_by_its_ranks(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(labelled(3000))
    command = (*(sys.executable, "-m", "headrace", "train", str(data)), "--ranks", str(RANKS), "--epochs", "1000")
    training = await asyncio.create_subprocess_exec(
        *command, "--out", str(tmp_path / "model.safetensors"), stdout=PIPE, env={**os.environ, "COLUMNS": "200"}
    )
    try:
        tree = psutil.Process(training.pid)

        def met() -> dict[int, list[str]] | None:
            """Once the ranks are connected to each other."""
            connected = [one for one in tree.children(recursive=True) if is_connected_rank(one)]
            return listening(tree) if len(connected) == RANKS else None

        found = await until(met)
        assert training.returncode is None
    finally:
        training.send_signal(signal.SIGTERM)
        await training.communicate()

    addresses = [address for of in found.values() for address in of]
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses), found
    # One socket a rank, by which gloo's neighbours find it; none of the command, which may hold a signing key.
    assert training.pid not in found
    assert [len(of) for of in found.values()] == [1] * RANKS
