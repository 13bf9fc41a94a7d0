"""Every public function of the client with arguments that it can't use: what is raised names the argument."""

import asyncio
import datetime as dt
import enum
import inspect
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest

import headrace.client
from headrace.client import ArgumentError, Client, MisuseError, Outgoing, Place, StartError, prepare
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace_schemas.codec import decode_request
from headrace_schemas.errors import WireError
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest
from tests.support.memory_kafka import MemoryCluster
from tests.support.waiting import until

REQUESTS, RESULTS = "classify.requests", "classify.results"
HUGE = 10**6000
"""Python refuses to write it: it has more digits than sys.get_int_max_str_digits()."""


class Unspeakable:
    """What can't even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Colour(enum.StrEnum):
    RED = "rot"


def generator() -> Iterable[int]:
    yield from (0, 1)


NO_TEXTS = (7, 1.5, True, ["a"], {"a": 1}, object(), Unspeakable(), HUGE, np.int64(3))
NO_NUMBERS = ("0", b"0", 1.0, math.nan, True, None, [0], Unspeakable(), np.str_("0"), np.bool_(True))
NO_SECONDS = ("5", b"5", True, [5], {}, Unspeakable(), -1, 0, HUGE, -HUGE, math.nan, math.inf, -math.inf, 1e300, 1j)
NO_PAIRS = ({"a": b"b"}, "ab", b"ab", 7, None, {("a", b"b")}, [("a",)], [("a", "b")], [(b"a", b"b")], [("\ud800", b"")])
NO_TOPICS = (*NO_TEXTS, None, "", " ", "a b", "..", "x" * 250, "\ud800", "a\n", "täglich")

REQUEST: Mapping[str, Iterable[object]] = {
    "request": (None, *NO_TEXTS, bytearray(b"{}"), memoryview(b"{}"), ClassifyRequest(text=7)),  # type: ignore[arg-type]
    "request.text": (ClassifyRequest(text=None), ClassifyRequest(text=b"x")),  # type: ignore[arg-type]
    "request.id": (ClassifyRequest(text="x", id=7), ClassifyRequest(text="x", id=b"7")),  # type: ignore[arg-type]
    "id": (*NO_TEXTS, b"7"),
    "key": (*NO_TEXTS, "\ud800", bytearray(b"k")),
    "headers": (*NO_PAIRS, [Unspeakable()], ["ab"], (one for one in [("a", b"b")])),
    "timeout": NO_SECONDS,
}
PARTITION = (*(one for one in NO_NUMBERS if one is not None), -1, HUGE, 2**31)
READING: Mapping[str, Iterable[object]] = {
    "partitions": (7, "01", b"01", [], [-1], ["0"], [True], [None], [HUGE], [1.0], {}, Unspeakable()),
    "from_": ({"0": 1}, {-1: 1}, {0: -1}, {0: "1"}, {0: True}, {0: None}, {0: HUGE}, {None: 1}, {0: math.nan}),
    "from_.position": ({0: Place(-1)}, {0: Place("1")}, {0: Place(None)}),  # type: ignore[arg-type]
    "from_.highest": ({0: Place(1, -1)}, {0: Place(1, "1")}),  # type: ignore[arg-type]
}
NO_STARTS = (None, 7, True, b"latest", "", "Latest", "yesterday", "0000-01-01", "1969-12-31", dt.date(2026, 1, 1), [])
GROUP = (*NO_TEXTS, "", "  ", "a\nb", "\ud800", "x" * 250, b"g")


def on_twin(play: Callable[[Client, MemoryCluster], Any]) -> None:
    async def main() -> None:
        cluster = MemoryCluster(SystemClock())
        for name in (REQUESTS, RESULTS):
            cluster.create_topic(TopicSpec(name=name, partitions=2))
        try:
            async with Client(cluster) as client:
                await play(client, cluster)
            assert not any(cluster.log(TopicPartition(REQUESTS, number)).records for number in (0, 1))
        finally:
            await cluster.close()

    asyncio.run(main())


async def done(call: Callable[[], Any]) -> None:
    """Call, and begin what that gives: a coroutine, an iterator, a context."""
    found = call()
    if inspect.isasyncgen(found):
        await anext(found)
    elif hasattr(found, "__aenter__"):
        async with found:
            pass
    elif inspect.isawaitable(found):
        await found


async def refused(name: str, call: Callable[[], Any], kinds: Any = ArgumentError) -> None:
    with pytest.raises(kinds) as caught:
        await done(call)
    said = str(caught.value)
    assert said.startswith(f"{name}: "), said
    assert len(said) < 400
    assert isinstance(caught.value, UserError | WireError)


def by_name(table: Mapping[str, Iterable[object]]) -> list[Any]:
    return [pytest.param(name, given, id=name) for name, given in table.items()]


@pytest.mark.parametrize(("name", "given"), by_name(REQUEST))
def test_what_no_request_is_made_of(name: str, given: Iterable[object]) -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        for one in given:
            arguments: dict[str, Any] = {"request": "x", name.partition(".")[0]: one}
            told = "request.text" if isinstance(one, ClassifyRequest) and name == "request" else name
            for call in (client.publish, client.classify, client.prepare, prepare):
                await refused(told, lambda call=call, arguments=arguments: call(**arguments))
            if name.startswith("request"):
                await refused(told, lambda one=one: client.publish_many([one]))

    on_twin(play)


def test_who_waits_for_an_answer_does_not_wait_for_ever() -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        await refused("timeout", lambda: client.classify("x", timeout=None))  # type: ignore[arg-type]

    on_twin(play)


def test_what_is_no_partition_and_what_are_not_many_requests() -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        for one in PARTITION:
            await refused("partition", lambda one=one: client.publish("x", partition=one))
            await refused("partition", lambda one=one: client.publish_many(["x"], partition=one))
        for many in (
            None,
            7,
            True,
            "text",
            b"bytes",
            {"text": "x"},
            ClassifyRequest(text="x"),
            prepare("x"),
            Unspeakable(),
        ):
            await refused("requests", lambda many=many: client.publish_many(many))

    on_twin(play)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("request.value", {"value": "text"}),
        ("request.value", {"value": 7}),
        ("request.key", {"value": b"{}", "key": "k"}),
        ("request.headers", {"value": b"{}", "headers": {"a": b"b"}}),
        ("request.headers", {"value": b"{}", "headers": [("a", "b")]}),
        ("request.timestamp_ms", {"value": b"{}", "timestamp_ms": "now"}),
        ("request.timestamp_ms", {"value": b"{}", "timestamp_ms": -5}),
        ("request.timestamp_ms", {"value": b"{}", "timestamp_ms": HUGE}),
    ],
)
def test_records_of_ones_own_that_can_not_be_sent(name: str, given: dict[str, Any]) -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        await refused(name, lambda: client.publish_many([Outgoing(**given)]))

    on_twin(play)


@pytest.mark.parametrize(("name", "given"), by_name(READING))
def test_where_nobody_can_read(name: str, given: Iterable[object]) -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        for one in given:
            arguments: dict[str, Any] = {name.partition(".")[0]: one}
            for call in (client.answers, client.reader):
                await refused(name, lambda call=call, arguments=arguments: call(**arguments))

    on_twin(play)


def test_what_is_no_group_and_no_start() -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        for group in GROUP:
            await refused("group", lambda group=group: client.answers(group=group))
            await refused("group", lambda group=group: client.group_reader(group))
        for start in NO_STARTS:
            for call in (
                lambda start=start: client.answers(start),
                lambda start=start: client.answers(start, group="g"),
                lambda start=start: client.group_reader("g", start),
            ):
                with pytest.raises(StartError, match=r"no place to begin|before 1970"):
                    await done(call)

    on_twin(play)


def test_what_a_reader_can_not_be_asked() -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        no_waits = [one for one in NO_SECONDS if one != 0]
        async with client.reader("earliest") as reader, client.group_reader("g", "earliest") as member:
            for wait in no_waits:
                await refused("timeout_s", lambda wait=wait: reader.read(timeout_s=wait))
                await refused("timeout_s", lambda wait=wait: member.read(timeout_s=wait))
                await refused("every_s", lambda wait=wait: member.commit(every_s=wait))
            for one in (None, 7, "answer", Place(1)):
                await refused("answer", lambda one=one: member.mark(one))
                await refused("answer", lambda one=one: member.owns(one))
            assert await reader.read(timeout_s=0) == []

    on_twin(play)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("requests", NO_TOPICS),
        ("results", (*NO_TOPICS, REQUESTS)),
        ("max_batch", (*NO_NUMBERS, 0, -1, 4097, HUGE)),
        (
            "shape",
            (None, {"text_path": "a"}, "ticket.body", RequestShape(text_path=""), RequestShape(text_path="a..b")),
        ),
        ("shape.text_path", (RequestShape(text_path=7), RequestShape(text_path=None))),  # type: ignore[arg-type]
        ("shape.max_text_bytes", (RequestShape(max_text_bytes="9"),)),  # type: ignore[arg-type]
        ("cluster", ("127.0.0.1:9092", None, 7, Unspeakable())),
    ],
)
def test_what_no_client_is_made_of(name: str, given: Iterable[object]) -> None:
    async def play(_: Client, cluster: MemoryCluster) -> None:
        for one in given:
            arguments: dict[str, Any] = {"cluster": cluster, name.partition(".")[0]: one}
            await refused(name, lambda arguments=arguments: Client(**arguments))

    on_twin(play)


@pytest.mark.parametrize(
    "given", [None, 7, b"[]", "", "{", '{"a": 1}', '{"0": -1}', "\ud800", '{"0": {"position": -1}}']
)
def test_what_holds_no_positions(given: Any) -> None:
    with pytest.raises(UserError, match="no positions of a reader"):
        headrace.client.decode_positions(given)


@pytest.mark.parametrize("text", [np.str_("rot"), Colour.RED, "rot"])
def test_every_kind_of_text_is_a_text(text: str) -> None:
    made = prepare(text, id=text, key=text, headers=[(text, np.bytes_(b"v"))], timeout=np.float32(1.5))
    assert decode_request(made.value) == ClassifyRequest(text="rot", id="rot")
    assert (made.key, made.headers) == (b"rot", (("rot", b"v"), ("timeout-ms", b"1500")))
    assert {type(part) for part in (made.value, made.key, made.headers[0][1])} == {bytes}
    assert prepare(ClassifyRequest(text=text, id=text)).value == made.value


def test_what_can_be_walked_once_is_walked_once() -> None:
    async def play(client: Client, _: MemoryCluster) -> None:
        async with client.reader("earliest", partitions=generator()) as reader:  # type: ignore[arg-type]
            assert sorted(reader.positions) == [0, 1]
        async with client.reader({np.int64(1): np.int64(0)}) as reader:
            assert sorted(reader.positions) == [0, 1]

    on_twin(play)


@pytest.mark.parametrize("given", [{"text": "\ud800"}, {"id": "\ud800"}, {"text": "x" * 70_000}, {"id": "x" * 2000}])
def test_what_the_wire_refuses_names_the_field(given: dict[str, str]) -> None:
    with pytest.raises(WireError):
        prepare(given.get("text", "x"), id=given.get("id"))


async def test_a_bad_request_among_many_is_numbered_and_what_was_published_is_said() -> None:
    cluster = MemoryCluster(SystemClock())
    for name in (REQUESTS, RESULTS):
        cluster.create_topic(TopicSpec(name=name, partitions=2))
    many = [f"text {number}" for number in range(2500)]
    async with Client(cluster) as client:
        for wrong, kind in ((None, ArgumentError), ("x" * 70_000, WireError)):
            with pytest.raises(kind) as caught:
                await client.publish_many([*many, wrong])  # type: ignore[list-item]
            assert caught.value.__notes__ == [
                "It is request 2,500 of those given, counted from 0.",
                "The first 2,000 requests were published, nothing behind them was sent. Go on behind them.",
            ]
    await cluster.close()


async def test_a_client_is_entered_once_and_closing_twice_is_fine() -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name=REQUESTS, partitions=1))
    async with Client(cluster) as client:
        with pytest.raises(MisuseError, match="entered already"):
            await client.__aenter__()
        assert (await client.publish("still there")).offset == 0
    await client.__aexit__(None, None, None)
    with pytest.raises(headrace.client.ClientClosedError, match="connect anew"):
        await client.__aenter__()
    await cluster.close()


async def test_a_forked_process_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name=REQUESTS, partitions=1))
    async with Client(cluster) as client:
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            for call in (client.publish, client.classify):
                with pytest.raises(MisuseError, match="before a fork"):
                    await call("x")
        assert (await client.publish("x")).offset == 0
    await cluster.close()


async def test_who_mixes_up_the_two_clients_is_told_which_is_which() -> None:
    cluster = MemoryCluster(SystemClock())
    with pytest.raises(MisuseError, match="async with"), Client(cluster):  # type: ignore[var-annotated]
        pass
    with headrace.client.SyncClient(Client(cluster)) as sync, pytest.raises(MisuseError, match="by `with`"):
        async with sync:
            pass


async def test_another_event_loop_is_told_so() -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name=REQUESTS, partitions=1))
    told: list[BaseException] = []
    async with Client(cluster) as client:

        def elsewhere() -> None:
            for call in (client.publish, client.classify):
                try:
                    asyncio.run(call("x"))
                except MisuseError as error:
                    told.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert ["another event loop" in str(error) for error in told] == [True, True]
    await cluster.close()


async def test_what_is_cancelled_leaves_nothing_behind() -> None:
    cluster = MemoryCluster(SystemClock())
    for name in (REQUESTS, RESULTS):
        cluster.create_topic(TopicSpec(name=name, partitions=1))
    async with Client(cluster) as client:
        calls = [asyncio.create_task(client.classify(f"text {number}")) for number in range(20)]
        await until(lambda: len(cluster.log(TopicPartition(REQUESTS, 0)).records) == 20 or None)
        for call in calls:
            call.cancel()
        assert await asyncio.gather(*calls, return_exceptions=True)
        assert client._awaiter is not None
        assert not client._awaiter._waiting
        assert not client._awaiter._early
        assert not asyncio.all_tasks().intersection(calls)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await cluster.close()
