"""Ctrl-C in the real commands: 130, one line, and what is known to be done."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from headrace_load.processes import slowness

LIMIT_S = 120.0

PROGRAM = """
import sys
from headrace import cli
from headrace.commands import {module} as command

def interrupted(*_, **__):
    raise KeyboardInterrupt

command.{name} = interrupted
sys.argv = ["headrace", *{arguments!r}]
cli.main()
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S * slowness(),
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("dead_letters", "cluster_of", ["dead-letters", "list"]),
        ("labels", "cluster_of", ["labels", "list"]),
        ("topics", "cluster_of", ["topics", "describe"]),
    ],
)
def test_ctrl_c_ends_a_command_with_130_and_one_line(module: str, name: str, arguments: list[str]) -> None:
    done = ended(PROGRAM.format(module=module, name=name, arguments=arguments))
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "headrace: Stopped by SIGINT.\n")


def test_ctrl_c_in_a_purge_says_how_many_went() -> None:
    done = ended("""
        import asyncio, os, signal, sys
        from headrace import cli
        from headrace.commands import dead_letters
        from headrace.kafka.interface import TopicPartition

        class Admin:
            calls = 0
            async def start(self): pass
            async def stop(self): pass
            async def delete_records(self, before):
                Admin.calls += 1
                if Admin.calls > 1:
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.Event().wait()

        class Cluster:
            def admin(self): return Admin()

        async def ends(*_): return {TopicPartition("classify.dead-letters", number): 5 for number in range(3)}
        async def counted(*_): return dead_letters.Counter({0: 5, 1: 5, 2: 5}), 0

        dead_letters.cluster_of, dead_letters._ends, dead_letters._counted = lambda _: Cluster(), ends, counted
        sys.argv = ["headrace", "dead-letters", "purge", "--all", "--yes"]
        cli.main()
    """)
    known = "5 dead letters were deleted (all of partition 0), and of partition 1 it is unknown."
    assert done.stderr == f"headrace: Stopped by SIGINT. {known} The same command may be run again.\n"
    assert done.returncode == 128 + signal.SIGINT


def test_while_the_command_line_is_loaded_it_ends_by_the_signal_without_a_traceback() -> None:
    done = ended(
        """
        import os, signal, sys

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "typer":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupting())
        sys.argv = ["headrace", "--version"]
        from headrace.__main__ import main
        main()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
