"""Starting brokers without starting one: what is missing is said, and settings fit the number of nodes."""

from __future__ import annotations

import os
import pwd
import re
import sys
from importlib import resources
from pathlib import Path

import pytest

from headrace.core.errors import InterruptedChildError
from headrace.kafka.brokers import (
    KAFKA_VERSION,
    BrokerProcess,
    BrokerStartError,
    apache_broker,
    cache_directory,
    cluster_id,
    java_binary,
    java_major,
    kafka_jars,
    node_settings,
    wait_until_ready,
)
from headrace.security.private_folder import NoFolderError

POM = resources.files("headrace.kafka").joinpath("pom.xml")


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("printed", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("no such thing", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_prints(printed, major):
    assert java_major(printed) == major


def test_where_there_is_no_java_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerStartError, match=r"needs Java 17 or later.*--kind embedded"):
        java_binary()


def test_a_java_that_is_too_old_is_named_with_its_version(monkeypatch, tmp_path):
    executable(tmp_path / "bin" / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(BrokerStartError, match=r"Java 17 or later, but .*11\.0\.2"):
        java_binary()


def test_where_there_is_no_maven_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerStartError, match="Maven, which fetches them once, is not installed"):
        kafka_jars(tmp_path / "jars")


def test_what_maven_says_when_it_fails_is_passed_on_and_nothing_is_kept(monkeypatch, tmp_path):
    executable(tmp_path / "bin" / "mvn", "echo 'repository is not reachable'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with pytest.raises(BrokerStartError, match="repository is not reachable"):
        kafka_jars(tmp_path / "cache" / "jars")
    assert list((tmp_path / "cache").iterdir()) == []


def test_maven_runs_once_and_again_only_for_other_jars(monkeypatch, tmp_path):
    executable(
        tmp_path / "bin" / "mvn",
        f"echo run >> {tmp_path / 'runs'}\n"
        'for part in "$@"; do case $part in -DoutputDirectory=*) touch "${part#*=}/kafka_2.13-4.jar";; esac; done',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    jars = tmp_path / "cache" / "jars"
    assert kafka_jars(jars) == kafka_jars(jars) == jars
    assert (tmp_path / "runs").read_text().count("run") == 1
    (jars / "pom.xml").write_text("<project>of another version</project>")
    kafka_jars(jars)
    assert (tmp_path / "runs").read_text().count("run") == 2
    assert (jars / "pom.xml").read_bytes() == POM.read_bytes()


def test_jars_that_another_process_fetched_meanwhile_are_left_to_those_who_run_from_them(monkeypatch, tmp_path):
    jars = tmp_path / "cache" / "jars"
    executable(
        tmp_path / "bin" / "mvn",
        f"mkdir {jars}; cp {POM} {jars}; touch {jars}/kafka_of_another.jar\n"
        'for part in "$@"; do case $part in -DoutputDirectory=*) touch "${part#*=}/kafka_2.13-4.jar";; esac; done',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert kafka_jars(jars) == jars
    assert {path.name for path in jars.iterdir()} == {"pom.xml", "kafka_of_another.jar"}


def test_the_jars_are_cached_under_the_version_that_the_pom_names(tmp_path):
    [version, *_] = re.findall(r"<version>(.+)</version>", POM.read_text())
    assert version == KAFKA_VERSION
    assert cache_directory({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "headrace" / f"kafka-{version}"


def test_jars_that_another_user_fetched_are_taken_from_a_cache_that_nobody_else_can_write(monkeypatch, tmp_path):
    cache = tmp_path / "headrace" / f"kafka-{KAFKA_VERSION}"
    cache.mkdir(parents=True)
    (cache / "pom.xml").write_bytes(POM.read_bytes())
    monkeypatch.setattr("headrace.security.private_folder.why_unusable", lambda path: f"{path} is read-only")
    environ = {"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    assert cache_directory(environ) == cache
    cache.chmod(0o777)
    with pytest.raises(NoFolderError, match=f"kafka-{KAFKA_VERSION} be kept: others can write .*Set XDG_CACHE_HOME"):
        cache_directory(environ)


def test_maven_keeps_a_repository_in_the_work_folder_for_a_user_whose_home_is_not_there(monkeypatch, tmp_path):
    executable(
        tmp_path / "bin" / "mvn",
        f'echo "$@" > {tmp_path / "told"}\n'
        'for part in "$@"; do case $part in -DoutputDirectory=*) touch "${part#*=}/kafka_2.13-4.jar";; esac; done',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    kafka_jars(tmp_path / "a" / "jars")
    assert ("-Dmaven.repo.local=" in (tmp_path / "told").read_text()) is not os.access(Path.home(), os.W_OK)

    def nobody(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    kafka_jars(tmp_path / "b" / "jars")
    assert re.search(rf"-Dmaven\.repo\.local={tmp_path}/b/jars-\w+/repository", (tmp_path / "told").read_text())


def test_the_pom_in_deploy_is_the_one_that_the_package_ships():
    checkout = Path(__file__).parents[3] / "deploy" / "kafka" / "pom.xml"
    assert checkout.read_bytes() == POM.read_bytes()


def test_three_nodes_keep_three_copies_and_one_node_keeps_one():
    voters = "0@127.0.0.1:1,1@127.0.0.1:2,2@127.0.0.1:3"
    three = node_settings(1, "127.0.0.1:9093", voters, 3, Path("data"))
    assert (three["offsets.topic.replication.factor"], three["min.insync.replicas"]) == ("3", "2")
    assert three["listeners"] == "PLAINTEXT://127.0.0.1:9093,CONTROLLER://127.0.0.1:2"
    one = node_settings(0, "127.0.0.1:9092", "0@127.0.0.1:1", 1, Path("data"))
    assert (one["offsets.topic.replication.factor"], one["min.insync.replicas"]) == ("1", "1")


def test_nodes_of_one_directory_share_an_id_that_stays(tmp_path):
    made = cluster_id(tmp_path)
    assert len(made) == 22
    assert cluster_id(tmp_path) == made


async def test_two_nodes_are_no_cluster():
    with pytest.raises(ValueError, match="1 or 3"):
        async with apache_broker(2):
            pass


async def test_a_broker_that_ends_while_it_starts_shows_the_end_of_its_log(tmp_path):
    process = BrokerProcess([sys.executable, "-c", "print('the disk is full')"], tmp_path / "broker.log")
    process.start()
    with pytest.raises(BrokerStartError, match=r"ended while it started(?s:.*)the disk is full"):
        await wait_until_ready("127.0.0.1:1", 1, [process], limit_s=20)


async def test_a_broker_that_ctrl_c_ends_while_it_starts_is_told_from_one_that_fails(tmp_path):
    interrupted = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"
    process = BrokerProcess([sys.executable, "-c", interrupted], tmp_path / "broker.log")
    process.start()
    with pytest.raises(InterruptedChildError, match="ended while it started"):
        await wait_until_ready("127.0.0.1:1", 1, [process], limit_s=20)


async def test_a_broker_that_never_answers_is_given_up_in_time(tmp_path):
    process = BrokerProcess([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "broker.log")
    process.start()
    with pytest.raises(BrokerStartError, match=r"did not answer within 0\.3 s"):
        await wait_until_ready("127.0.0.1:1", 1, [process], limit_s=0.3)
    await process.end()
    assert not process.running


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    process = BrokerProcess([sys.executable, "-c", stubborn], tmp_path / "broker.log")
    process.start()
    while "up" not in process.log_tail():
        assert process.running
    await process.end(limit_s=0.2)
    assert not process.running


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BrokerStartError, match="nowhere can't be run"):
        BrokerProcess([str(tmp_path / "nowhere")], tmp_path / "broker.log").start()
