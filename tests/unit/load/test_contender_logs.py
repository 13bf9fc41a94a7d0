"""A contender's log, from which its ports and times are read."""

import sys
from pathlib import Path

from headrace_load.contender import Contender, Program, starter
from headrace_load.target import TOPICS, System


async def test_a_log_holds_nothing_of_an_earlier_command_in_the_same_folder(tmp_path: Path) -> None:
    log = tmp_path / "contender-1.log"
    log.write_bytes(b"admin.listening of yesterday\n")
    contender = Contender(name="p", program=Program(command=(sys.executable, "-c", "import time; time.sleep(60)")))
    system = System(bootstrap="127.0.0.1:1", **{name: name for name in TOPICS})
    async with starter(contender, system, group="g", folder=tmp_path, wait=False)():
        assert b"yesterday" not in log.read_bytes()
