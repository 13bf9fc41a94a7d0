"""One suite for both clients, against the embedded broker: each test is written as the synchronous client is used."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.client import (
    ArgumentError,
    Client,
    ClientClosedError,
    Place,
    SyncClient,
    connect,
    connect_sync,
    decode_positions,
    encode_positions,
)
from headrace.core.fields import StartError
from headrace_schemas.errors import TextTooLargeError
from headrace_schemas.records import Status
from tests.support.answered_site import Site, answered


class Driven:
    """The asynchronous client, or what it gives, driven from the outside: coroutines are run, the rest is entered."""

    def __init__(self, runner: asyncio.Runner, target: object) -> None:
        self._runner = runner
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._driven(found) if callable(found) else found

    def _driven(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> Any:
            given = function(*args, **kwargs)
            if inspect.iscoroutine(given):
                return self._runner.run(given)
            if inspect.isasyncgen(given):
                return self._walked(given)
            return self.entered(given) if hasattr(given, "__aenter__") else given

        return call

    def _walked(self, generator: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(generator)

        async def end() -> None:
            await generator.aclose()

        try:
            while True:
                yield self._runner.run(following())
        finally:
            self._runner.run(end())

    @contextmanager
    def entered(self, context: AbstractAsyncContextManager[Any]) -> Iterator[Driven]:
        async def leave() -> None:
            await context.__aexit__(None, None, None)

        async def enter() -> Any:
            return await context.__aenter__()

        target = self._runner.run(enter())
        try:
            yield Driven(self._runner, target)
        finally:
            self._runner.run(leave())


@pytest.fixture(scope="module")
def site(embedded_bootstrap: str) -> Iterator[Site]:
    place = Site(embedded_bootstrap, idempotent=False)
    with answered(place):
        yield place


@pytest.fixture
def arguments(site: Site) -> dict[str, Any]:
    return {"kafka": site.cluster.settings, "requests": site.requests, "results": site.results}


@pytest.fixture(params=["asynchronous", "synchronous"])
def client(request: pytest.FixtureRequest, arguments: dict[str, Any]) -> Iterator[Any]:
    if request.param == "synchronous":
        with connect_sync(**arguments) as sync:
            yield sync
    else:
        with asyncio.Runner() as runner, Driven(runner, None).entered(connect(**arguments)) as driven:
            yield driven


def test_a_text_is_published_and_classified(client: Any) -> None:
    published = client.publish("Where is Lima?", id="q-1", key="user-7", timeout=30, headers=[("tenant", b"a")])
    assert published.partition in client.request_partitions()
    result = client.classify("Who wrote the Iliad?", timeout=30)
    assert (result.status, result.label) == (Status.OK, "sport")


def test_many_are_published_in_order_and_every_answer_comes_once(client: Any) -> None:
    requests = (client.prepare(f"text {number}", key=f"key {number}") for number in range(4500))
    published = client.publish_many(requests)
    assert len(published) == len(set(published)) == 4500
    wanted = {(one.partition, one.offset) for one in published}
    seen: list[tuple[int, int]] = []
    with closing(client.answers("earliest")) as answers:
        for answer in answers:
            seen.append((answer.partition, answer.result.offset))
            assert answer.hole is None
            if wanted <= set(seen):
                break
    assert len(seen) == len(set(seen))


def test_a_reader_goes_on_where_another_one_stopped(client: Any) -> None:
    client.publish_many([f"text {number}" for number in range(10)], partition=1)
    with client.reader("earliest", partitions=[1]) as reader:
        first = reader.read(timeout_s=30.0)
        assert first
        kept = encode_positions(reader.positions)
        assert reader.ends()[1] >= first[-1].position
    place = decode_positions(kept)[1]
    assert isinstance(place, Place)
    assert place == first[-1].place
    client.classify("one more", timeout=30)
    client.publish("and one here", partition=1)
    with client.reader({1: place}, partitions=[1]) as reader:
        later: list[Any] = []
        while not later:
            later = reader.read(timeout_s=30.0)
        assert later[0].result.offset > first[-1].result.offset


@pytest.mark.parametrize("client", ["synchronous"], indirect=True)
def test_a_group_keeps_its_place(client: Any, site: Site) -> None:
    # Of the other client the end-to-end tests show it.
    group = f"{site.prefix}billing"
    published = client.publish_many([f"text {number}" for number in range(6)], partition=0)
    with client.group_reader(group, "earliest") as member:
        seen: set[int] = set()
        while published[2].offset not in seen:
            for answer in member.read():
                if answer.partition == 0 and answer.result.offset <= published[2].offset:
                    assert member.owns(answer)
                    seen.add(answer.result.offset)
                    member.mark(answer)
        assert member.partitions == {0, 1}
        member.commit()
    with closing(client.answers("earliest", group=group)) as answers:
        first = next(answer for answer in answers if answer.partition == 0)
    assert first.result.offset == published[3].offset


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (ArgumentError, lambda client: client.classify("x", timeout=None)),
        (ArgumentError, lambda client: client.classify(None)),
        (ArgumentError, lambda client: client.publish("x", partition=-1)),
        (ArgumentError, lambda client: client.publish_many("text")),
        (ArgumentError, lambda client: client.publish_many(["x", 7])),
        (ArgumentError, lambda client: next(client.answers(partitions=[]))),
        (ArgumentError, lambda client: next(client.answers(group=""))),
        (ArgumentError, lambda client: next(client.answers(group="g", partitions=[0]))),
        (StartError, lambda client: next(client.answers("Latest"))),
        (TextTooLargeError, lambda client: client.publish("x" * 70_000)),
    ],
)
def test_what_is_misused_is_told_by_both_in_the_same_words(
    kind: type[Exception], call: Callable[[Any], object], arguments: dict[str, Any]
) -> None:
    told: list[tuple[str, Any]] = []
    with (
        asyncio.Runner() as runner,
        Driven(runner, None).entered(connect(**arguments)) as driven,
        connect_sync(**arguments) as sync,
    ):
        for client in (driven, sync):
            with pytest.raises(kind) as caught:
                call(client)
            told.append((str(caught.value), getattr(caught.value, "__notes__", [])))
    assert told[0] == told[1]


def test_both_are_closed_once_for_all(arguments: dict[str, Any]) -> None:
    with connect_sync(**arguments) as sync:
        pass
    sync.close()
    with pytest.raises(ClientClosedError, match="connect anew"):
        sync.publish("late")

    async def main() -> None:
        async with connect(**arguments) as client:
            pass
        with pytest.raises(ClientClosedError, match="connect anew"):
            await client.publish("late")

    asyncio.run(main())


def test_both_offer_the_same() -> None:
    offered = {name for name in vars(Client) if not name.startswith("_")}
    assert {name for name in vars(SyncClient) if not name.startswith("_")} == offered | {"close"}
    for name in offered:
        mine, theirs = (inspect.signature(getattr(one, name)) for one in (SyncClient, Client))
        assert mine.parameters == theirs.parameters, name


def test_settings_of_a_file_are_enough(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(site.toml())
    with connect_sync() as client:
        assert client.classify("Where is Lima?", timeout=30).label == "sport"
