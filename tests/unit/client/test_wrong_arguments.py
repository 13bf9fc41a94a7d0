"""Wrong arguments of the client and of `connect` are named before anything is sent."""

import asyncio
from typing import Any

import pytest

from headrace.client import (
    ArgumentError,
    connect,
    prepare,
)
from headrace_schemas.records import ClassifyRequest
from tests.support.client_scene import Scene, scene


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("id", {"id": 7}),
        ("request", {"request": None}),
        ("request", {"request": {"text": "x"}}),
        ("key", {"key": 7}),
        ("key", {"key": "\ud800"}),
        ("headers", {"headers": {"tenant": b"a"}}),
        ("headers", {"headers": "tenant"}),
        ("headers", {"headers": [("tenant", "a")]}),
        ("headers", {"headers": ["ab"]}),
        ("headers", {"headers": None}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": float("nan")}),
        ("timeout", {"timeout": float("inf")}),
        ("timeout", {"timeout": "5"}),
        ("timeout", {"timeout": True}),
        ("timeout", {"timeout": 1e12}),
    ],
)
def test_a_wrong_part_of_a_request_is_named(name: str, given: Any) -> None:
    @scene
    async def play(stage: Scene) -> None:
        for call in (stage.client.publish, stage.client.classify):
            with pytest.raises(ArgumentError, match=rf"^{name}: "):
                await call(**{"request": "x", **given})
        assert not any(stage.records(partition=number) for number in (0, 1))

    play()


@scene
async def test_wrong_requests_partitions_and_starts_are_named(stage: Scene) -> None:
    wrong: list[Any] = ["a string", b"bytes", {"text": "x"}, ClassifyRequest(text="x"), prepare("x"), None, 7]
    for requests in wrong:
        with pytest.raises(ArgumentError, match=r"^requests: "):
            await stage.client.publish_many(requests)
    with pytest.raises(ArgumentError, match=r"^request: "):
        await stage.client.publish_many([None])  # type: ignore[list-item]
    calls: list[Any] = [-1, "0", True]
    for partition in calls:
        with pytest.raises(ArgumentError, match=r"^partition: "):
            await stage.client.publish("x", partition=partition)
    read: list[tuple[str, dict[str, Any]]] = [
        ("partitions", {"partitions": 0}),
        ("partitions", {"partitions": ["0"]}),
        ("from_", {"from_": {"0": 5}}),
        ("group", {"group": ""}),
        ("group", {"group": 7}),
        ("partitions", {"group": "billing", "partitions": [0]}),
    ]
    for name, given in read:
        with pytest.raises(ArgumentError, match=rf"^{name}: "):
            await anext(stage.client.answers(**given))
    assert not any(stage.records(partition=number) for number in (0, 1))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bootstrap", {"bootstrap": ["127.0.0.1:9092"]}),
        ("bootstrap", {"bootstrap": ""}),
        ("kafka", {"kafka": {"bootstrap": "127.0.0.1:9092"}}),
        ("requests", {"requests": ""}),
        ("results", {"results": 7}),
        ("max_batch", {"max_batch": "8"}),
        ("max_batch", {"max_batch": 0}),
        ("shape", {"shape": {"text_path": "a"}}),
    ],
)
def test_a_wrong_argument_of_connect_is_named(name: str, given: Any) -> None:
    async def main() -> None:
        async with connect(**given):
            raise AssertionError

    with pytest.raises(ArgumentError, match=rf"^{name}: "):
        asyncio.run(main())


@pytest.mark.parametrize(
    "read",
    [
        lambda client: client.reader("Latest"),
        lambda client: client.reader(partitions=[]),
        lambda client: client.group_reader("g", "Latest"),
        lambda client: client.group_reader(""),
    ],
)
def test_a_reader_that_can_not_be_makes_no_consumer_that_nobody_stops(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @scene
    async def play(stage: Scene) -> None:
        made: list[Any] = []
        monkeypatch.setattr(stage.cluster, "consumer", lambda **given: made.append(given))
        with pytest.raises(ValueError, match=r"."):
            async with read(stage.client):
                pass
        assert made == []

    play()
