import asyncio
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.client import ArgumentError, Client, KafkaSettings, connect, connect_sync
from headrace.config import SettingsError
from headrace_schemas.paths import RequestShape

FILE = """
[kafka]
bootstrap = "kafka-1:9093,kafka-2:9093"
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "reader"
sasl_password_file = "secret"

[topics]
prefix = "team."
results = "answers"

[requests]
text_path = "ticket.body"

[worker]
max_batch = 16
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("HEADRACE_KAFKA__BOOTSTRAP", "HEADRACE_TOPICS__PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "headrace.toml").write_text(FILE)
    (folder / "secret").write_text("s3cret\n")
    return folder


def kafka_of(client: Client) -> KafkaSettings:
    found: Any = client._cluster
    settings: KafkaSettings = found.settings
    return settings


def topics_of(client: Client) -> tuple[str, str]:
    return client._publisher.topic, client._results


def test_without_a_word_the_settings_are_those_of_the_commands(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect()
    kafka = kafka_of(client)
    assert (kafka.bootstrap, kafka.security_protocol, kafka.sasl_mechanism, kafka.sasl_username) == (
        "kafka-1:9093,kafka-2:9093",
        "SASL_SSL",
        "SCRAM-SHA-512",
        "reader",
    )
    assert kafka.sasl_password is not None
    assert kafka.sasl_password.reveal() == "s3cret"
    assert topics_of(client) == ("team.classify.requests", "answers")
    assert client.prepare("x").value == b'{"ticket":{"body":"x"}}'
    monkeypatch.setenv("HEADRACE_KAFKA__BOOTSTRAP", "elsewhere:9092")
    assert kafka_of(connect()).bootstrap == "elsewhere:9092"


def test_without_a_word_and_without_a_file_it_is_the_broker_of_this_machine() -> None:
    assert kafka_of(connect()) == KafkaSettings()
    assert topics_of(connect()) == ("classify.requests", "classify.results")


def test_what_is_given_wins(configured: Path) -> None:
    own = KafkaSettings(bootstrap="own:1")
    shape = RequestShape(text_path="body")
    client = connect("given:9092", config="headrace.toml", requests="mine", results="yours", shape=shape)
    assert kafka_of(client).bootstrap == "given:9092"
    assert kafka_of(client).sasl_username == "reader"
    assert topics_of(client) == ("mine", "yours")
    assert client.prepare("x").value == b'{"body":"x"}'
    client = connect(config=configured / "headrace.toml", kafka=own)
    assert kafka_of(client) is own
    assert topics_of(client) == ("team.classify.requests", "answers")


def test_an_address_alone_reads_neither_file_nor_environment(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (configured / "headrace.toml").write_text("no toml at all")
    monkeypatch.setenv("HEADRACE_TOPICS__PREFIX", "a b")
    for client in (connect("given:9092"), connect(kafka=KafkaSettings(bootstrap="given:9092"))):
        assert kafka_of(client) == KafkaSettings(bootstrap="given:9092")
        assert topics_of(client) == ("classify.requests", "classify.results")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no toml at all", "not a TOML file"),
        ('[kafka]\nbootstrap = "kafka"\n', r"kafka\.bootstrap .*line 2.*host:port"),
        ('[kafka]\nbootstap = "kafka:1"\n', r"Did you mean kafka\.bootstrap"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"\n', "sasl_username"),
        ('[topics]\nrequests = "answers"\nresults = "answers"\n', "two topics"),
        ('[requests]\ntext_path = "a..b"\n', "text_path|single dots"),
    ],
)
def test_settings_that_can_not_be_used_are_told_as_commands_tell_them(folder: Path, text: str, said: str) -> None:
    (folder / "headrace.toml").write_text(text)
    ways: tuple[Callable[[], object], ...] = (connect, connect_sync, lambda: connect(config="headrace.toml"))
    for way in ways:
        with pytest.raises(SettingsError, match=said):
            way()


def test_a_file_that_is_named_has_to_be_there(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"nosuch\.toml: can't be read"):
        connect(config="nosuch.toml")
    with pytest.raises(SettingsError, match="can't be read"):
        connect(config=folder)


def test_a_variable_that_sets_nothing_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", "elsewhere:9092")
    with pytest.warns(UserWarning, match="did you mean HEADRACE_KAFKA__BOOTSTRAP"):
        connect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect("given:9092")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("config", {"config": one}) for one in (7, True, {}, ["a"], "", " ", "a\n", "\0", b"headrace.toml")),
        *(("bootstrap", {"bootstrap": one}) for one in (7, "", "host", "host:0", "host:99999", ["a:1"], b"a:1")),
        ("bootstrap", {"bootstrap": "a:1", "kafka": KafkaSettings()}),
        *(("kafka", {"kafka": one}) for one in ({"bootstrap": "a:1"}, "a:1", 7, True)),
        *(("requests", {"requests": one}) for one in (7, "", "a b", b"a")),
        *(("results", {"results": one}) for one in (7, "", "a b", b"a")),
        *(("shape", {"shape": one}) for one in (7, "text", {"text_path": "a"}, RequestShape(text_path="a..b"))),
        *(("max_batch", {"max_batch": one}) for one in (None, 0, 5000, "8", True)),
    ],
)
def test_what_is_given_wrong_is_named_before_anything_is_connected(name: str, given: dict[str, Any]) -> None:
    for way in (connect, connect_sync):
        with pytest.raises(ArgumentError, match=rf"^{name}: "):
            way(**given)


def test_the_package_has_the_clients_at_its_top() -> None:
    code = (
        "import sys, headrace; assert 'headrace.client' not in sys.modules; "
        "print(headrace.connect is headrace.client.connect, headrace.connect_sync.__name__, headrace.__version__); "
        "headrace.connect(); "
        "print({'numpy', 'numba', 'torch', 'prometheus_client', 'uvloop', 'cryptography'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ended.stdout.splitlines() == [f"True connect_sync {headrace.__version__}", "set()"]
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        headrace.conect  # noqa: B018


def test_a_client_that_could_not_be_entered_can_be_tried_again() -> None:
    async def main() -> None:
        client = connect("127.0.0.1:1")
        for _ in range(2):
            with pytest.raises(headrace.client.KafkaError, match=r"127\.0\.0\.1:1"):
                await client.__aenter__()

    asyncio.run(main())


def test_the_client_loads_no_library_of_the_model() -> None:
    code = (
        "import sys, headrace.client, headrace.kafka.aio; "
        "print({'numpy', 'numba', 'torch', 'prometheus_client', 'uvloop'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"
