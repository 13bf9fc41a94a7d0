"""Ports that can't be listened on are said in one line, before anything is started; free ones are found."""

import errno
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import cli
from headrace.config.settings import AdminSettings
from headrace.kafka.brokers import BrokerProcess, apache_broker, embedded_broker
from headrace.process import lifecycle
from headrace.process.ports import PortError, check_free, free_ports, why_not

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is listened on, with a free one below it.

    Both are below the ports that Linux gives to outgoing connections: one of those took the lower port under load.
    """
    for port in random.sample(range(20_001, 32_000), 1_000):
        try:
            check_free(HOST, (port - 1, port), who="a test", advice="")
        except PortError:
            continue
        with socket.create_server((HOST, port)):
            yield port
        return
    pytest.fail("no two free neighbouring ports between 20,000 and 32,000")


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code, and the lines on standard error; nothing may be printed beside them."""
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert printed.out == ""
    return int(ended.value.code or 0), printed.err.splitlines()


def test_a_port_that_is_taken_is_not_free_and_one_that_was_found_is(taken: int) -> None:
    [free] = free_ports(1)
    check_free(HOST, [free], who="It", advice="Choose another.")
    with pytest.raises(
        PortError, match=f"It can't listen on {HOST}:{taken}: another process .* Choose another"
    ) as said:
        check_free(HOST, [free, taken], who="It", advice="Choose another.")
    assert said.value.exit_code == 2


def test_one_process_on_all_addresses_has_the_port_of_each() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as everywhere,  # noqa: S104 - it serves nothing
        pytest.raises(PortError, match="another process"),
    ):
        check_free(HOST, [everywhere.getsockname()[1]], who="It", advice="")


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        (HOST, 65536, "the largest port is 65535"),
        ("192.0.2.1", 0, "this machine has no such address"),
        ("nowhere.invalid", 0, "[Nn]ame|known"),
    ],
)
def test_what_can_not_be_listened_on_is_said_with_the_reason(host: str, port: int, why: str) -> None:
    with pytest.raises(PortError, match=why):
        check_free(host, [port], who="It", advice="")


def test_a_privileged_port_is_said_in_words() -> None:
    assert why_not(PermissionError(errno.EACCES, "Permission denied")) == "only an administrator may listen there"


def test_free_ports_are_different_ones() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    assert not set(free_ports(20, found)) & set(found)


def test_only_a_port_that_was_not_named_has_neighbours() -> None:
    assert AdminSettings().port_of(1) == 9465
    assert AdminSettings().neighbours > 0
    assert AdminSettings(port=9464).neighbours == AdminSettings(port=0).neighbours == 0


async def test_a_broker_of_either_kind_on_a_taken_port_starts_nothing(taken: int, monkeypatch, tmp_path) -> None:
    # Neither Java nor Maven nor the embedded broker is there: whoever looked for them would say so instead.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(BrokerProcess, "start", lambda _: pytest.fail("a broker was started"))
    for nodes, first in ((1, taken), (3, taken), (3, taken - 2)):
        with pytest.raises(PortError, match=str(taken)):
            async with apache_broker(nodes, port=first, log_dir=tmp_path / "data"):
                pass
    with pytest.raises(PortError, match=str(taken)):
        async with embedded_broker(taken):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_the_broker_command_says_a_taken_port_in_one_line(kind: str, taken: int, monkeypatch, capsys) -> None:
    code, [line] = run(monkeypatch, capsys, "broker", "--kind", kind, "--port", str(taken))
    assert code == 2
    assert f"can't listen on {HOST}:{taken}: another process listens there" in line
    assert "--port" in line


def test_a_broker_that_lost_its_port_in_the_last_moment_says_so_without_its_log(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    log.write_text("java.net.BindException: Address already in use\n")
    process = BrokerProcess([sys.executable, "-c", "pass"], log)
    process.start()
    assert "The end of its log" in str(process.start_error("It ended.")), "that was a former start's"
    with log.open("a") as more:
        more.write("java.net.BindException: Address already in use\n")
    assert str(process.start_error("It ended.")).count("\n") == 0


@pytest.mark.parametrize("model", ["two words", "champion!", "größe"])
def test_a_worker_of_a_model_that_can_be_no_name_and_is_no_file_ends_with_what_it_takes(
    model: str, monkeypatch, capsys
) -> None:
    code, lines = run(monkeypatch, capsys, "--set", "admin.port=0", "worker", "--model", model)
    assert code == 2
    assert f"worker.model is {model!r}, and there is no file of that name" in lines[-1]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_whose_named_admin_port_is_taken_ends_with_one_line(
    processes: str, taken: int, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(lifecycle, "supervise", lambda *_, **__: pytest.fail("members were started"))
    # The second member's port is the taken one where there are two.
    first = taken if processes == "1" else taken - 1
    code, lines = run(monkeypatch, capsys, "--set", f"admin.port={first}", "worker", "--processes", processes)
    assert code == 2
    assert sum(f"can't listen on {HOST}:{taken}" in line for line in lines) == 1
    assert "Traceback" not in "".join(lines)
