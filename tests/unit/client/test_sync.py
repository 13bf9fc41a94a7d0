import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.client import (
    ArgumentError,
    Client,
    ClientClosedError,
    NoAnswerError,
    SyncClient,
    connect_sync,
)
from headrace.core.clock import SystemClock
from headrace.kafka.interface import BrokerUnavailableError, TopicSpec
from headrace_schemas.records import Status
from tests.support.answer_log import AnswerWriter
from tests.support.memory_kafka import MemoryCluster

REQUESTS, RESULTS = "classify.requests", "classify.results"
LIMIT_S = 60

SCENE = """
import os, signal, sys, threading, time
from tests.unit.client.test_sync import SyncScene
scene = SyncScene()
client = scene.client
"""


class SyncScene:
    """A synchronous client over the twin, whose loop everything runs on; nobody answers until ``answer``."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster(SystemClock())
        for name in (REQUESTS, RESULTS):
            self.cluster.create_topic(TopicSpec(name=name, partitions=2))
        self.client = SyncClient(Client(self.cluster))

    def answer(self) -> None:
        async def start() -> None:
            writer = AnswerWriter(self.cluster, SystemClock(), REQUESTS, RESULTS, 2)
            self._answering = writer.start()

        self.client._thread.call(start)


@pytest.fixture
def stage() -> Iterator[SyncScene]:
    stage = SyncScene()
    with stage.client:
        yield stage
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "headrace-client"]


def waits_for_an_answer(client: SyncClient) -> bool:
    awaiter = client._held._awaiter
    return awaiter is not None and bool(awaiter._waiting)


def wait_until(look: Callable[[], object]) -> None:
    ended = time.monotonic() + LIMIT_S
    while not look():
        assert time.monotonic() < ended, "what was waited for did not come"
        threading.Event().wait(0.002)


def test_many_threads_share_a_client(stage: SyncScene) -> None:
    stage.answer()
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(stage.client.classify, [f"text {number}" for number in range(200)]))
    assert {result.status for result in results} == {Status.OK}
    assert len({result.crc for result in results}) == 200


async def test_it_works_where_a_loop_runs_already(stage: SyncScene) -> None:
    stage.answer()
    assert stage.client.classify("in a notebook").status is Status.OK
    assert asyncio.get_running_loop() is not stage.client._thread._loop


def test_what_is_given_one_by_one_is_walked_in_the_callers_thread(stage: SyncScene) -> None:
    walked: set[str] = set()

    def texts() -> Iterator[str]:
        for number in range(2500):
            walked.add(threading.current_thread().name)
            yield f"text {number}"

    assert len(stage.client.publish_many(texts())) == 2500
    assert walked == {threading.current_thread().name}


def test_errors_are_those_of_the_other_client(stage: SyncScene) -> None:
    with pytest.raises(NoAnswerError, match=r"within 0\.05 s"):
        stage.client.classify("nobody answers", timeout=0.05)
    with pytest.raises(ArgumentError, match=r"^id: "):
        stage.client.publish("x", id=7)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"^client: "):
        SyncClient(stage.client)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError) as caught:
        stage.client.publish_many([*["x"] * 2500, None])  # type: ignore[list-item]
    assert caught.value.__notes__ == [
        "It is request 2,500 of those given, counted from 0.",
        "The first 2,000 requests were published, nothing behind them was sent. Go on behind them.",
    ]


def test_who_waits_while_it_closes_is_told_so_and_no_thread_stays() -> None:
    stage = SyncScene()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.client.classify, "nobody answers", timeout=1000)
        wait_until(lambda: waits_for_an_answer(stage.client))
        reading = stage.client.answers("earliest")
        stage.client.close()
        stage.client.close()
        with pytest.raises(ClientClosedError, match="closed"):
            waiting.result()
    with pytest.raises(ClientClosedError):
        next(reading)
    for call in (stage.client.publish, stage.client.classify):
        with pytest.raises(ClientClosedError, match="connect anew"):
            call("late")
    assert not threads()


def test_a_break_out_of_the_answers_ends_their_reader(stage: SyncScene) -> None:
    stage.answer()
    stage.client.publish("seen")
    for _ in stage.client.answers("earliest"):
        break
    gc.collect()
    assert not stage.client._held._readers
    with pytest.raises(RuntimeError, match="in its own thread"):
        stage.client._thread.call(_call_back, stage.client)


async def _call_back(client: SyncClient) -> None:
    client.publish("would wait for itself")


def test_who_forgets_to_close_it_leaves_no_thread() -> None:
    stage = SyncScene()
    stage.client.publish("x")
    del stage
    gc.collect()
    wait_until(lambda: not threads())


def test_who_can_not_connect_is_told_and_leaves_no_thread() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        connect_sync("127.0.0.1:1")
    with pytest.raises(ArgumentError, match=r"^bootstrap: "):
        connect_sync("127.0.0.1")
    assert not threads()


def test_an_interrupt_before_the_call_has_begun_leaves_nothing_running(
    stage: SyncScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = stage.client._thread._loop
    begin = loop.call_soon_threadsafe

    def interrupted(callback: Callable[..., Any], *args: Any) -> None:
        begin(callback, *args)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.client.classify("nobody answers", timeout=1000)
    wait_until(lambda: not waits_for_an_answer(stage.client))
    stage.answer()
    assert stage.client.classify("again").status is Status.OK


def test_a_forked_child_is_told_to_connect_anew_and_ends_in_peace() -> None:
    code = """
    with client:
        client.publish("before")
        child = os.fork()
        if child == 0:
            for call in (client.publish, client.classify):
                try:
                    call("in the child")
                except Exception as error:
                    print(type(error).__name__, "before a fork" in str(error), flush=True)
            client.close()
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(client.publish("behind").offset >= 0)
    """
    assert run(code) == ["MisuseError True", "MisuseError True", "True"]


def test_an_interrupted_call_is_cancelled_and_the_client_goes_on() -> None:
    code = """
    def interrupt():
        while client._held._awaiter is None or not client._held._awaiter._waiting:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with client:
        try:
            client.classify("nobody answers", timeout=1000)
        except KeyboardInterrupt:
            print("interrupted")
        while client._held._awaiter._waiting:
            time.sleep(0.01)
        scene.answer()
        print(client.classify("again").status)
    print([thread.name for thread in threading.enumerate()])
    """
    assert run(code) == ["interrupted", "ok", "['MainThread']"]


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "answers = client.answers('earliest')"])
def test_the_interpreters_end_closes_it(end: str) -> None:
    code = f"""
    leave = client._held._publisher.stop

    async def told():
        await leave()
        os.write(1, b"closed\\n")

    client._held._publisher.stop = told
    client.publish("x")
    {end}
    """
    assert run(code) == ["closed"]


def run(code: str) -> list[str]:
    """The lines that a program over the twin prints; it has to end by itself, and says nothing on standard error."""
    source = SCENE + textwrap.dedent(code)
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_ctrl_c_in_a_publish_says_how_many_were_published_and_how_to_go_on() -> None:
    program = SCENE + textwrap.dedent("""
        class Held:
            seen = 0
            async def point(self, member, name):
                if name == "produce.before":
                    Held.seen += 1
                    if Held.seen > HELD:
                        os.kill(os.getpid(), signal.SIGINT)
                        import asyncio
                        await asyncio.Event().wait()
        scene.cluster.faults = Held()
        calls = {2: lambda: client.publish_many("x" for _ in range(2100)), 0: lambda: client.publish("x")}
        for HELD, call in calls.items():
            Held.seen = 0
            try:
                call()
            except KeyboardInterrupt as interrupt:
                print(*interrupt.__notes__, sep="\\n")
    """)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    many, one = ended.stdout.splitlines()
    assert many.startswith("The first 2,000 requests were published, of the next 100 it is unknown. Go on behind ")
    assert one.startswith("Whether the request was published is unknown")
