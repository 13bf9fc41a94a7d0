"""Each thing that the doctor looks at, broken on purpose, on every broker that can be broken so."""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
from pathlib import Path

import msgspec
import pytest
import trustme
from typer.testing import CliRunner

from headrace import cli
from headrace.commands.topics import acl_names, wanted_topics
from headrace.config import Settings, TopicsSettings
from headrace.config.gateway import GatewaySettings
from headrace.config.settings import SigningSettings, StoreSettings
from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.topics import carry_out
from headrace.kafka.topics import look as look_at_topics
from headrace.model.artifact import About, assemble, save
from headrace.model.places import as_told
from headrace.process.ports import free_ports
from headrace.registry.compacted_topics import KeysWriter, ModelsWriter
from headrace.registry.versions import version_record
from headrace.sight import doctor
from headrace.sight.doctor import Asked, examine, exit_code
from headrace.sight.findings import Finding, Level
from headrace_schemas.records import ApiKey, ModelAlias
from tests.support.models_site import NETWORK

LIMIT_S = 60.0
DAY_MS = 86_400_000


class Cluster:
    """Topics as they should be on a broker, a version in a folder, and the doctor on both."""

    def __init__(self, cluster, admin, producer, name: str, folder: Path) -> None:
        self.cluster, self.admin, self.producer, self.folder = cluster, admin, producer, folder
        settings = Settings(
            topics=TopicsSettings(prefix=f"{name}-", partitions=2), store=StoreSettings(allowed=(str(folder),))
        )
        trainer = msgspec.structs.replace(settings.trainer, store=str(folder))
        worker = msgspec.structs.replace(settings.worker, backend="constant")
        self.settings = msgspec.structs.replace(settings, trainer=trainer, worker=worker)

    @property
    def names(self):
        return acl_names(self.settings, ())

    async def apply(self) -> None:
        plan = await look_at_topics(self.admin, wanted_topics(self.settings.topics))
        await carry_out(self.admin, plan, grow=False)

    async def champion(self) -> Path:
        artifact = assemble(NETWORK, About(created_at_ms=60_000))
        file = self.folder / artifact.version
        save(artifact, str(file))
        record = version_record(artifact, name="default", where=as_told(str(file)), now_ms=60_000)
        alias = ModelAlias(name="default", alias="champion", version=record.version, moved_at_ms=60_000)
        await ModelsWriter(self.producer, self.names.models).publish([record, alias])
        return file

    async def examine(self, *, probe: bool = False) -> tuple[Finding, ...]:
        wanted = tuple(wanted_topics(self.settings.topics))
        asked = Asked(wanted=wanted, names=self.names, probe=probe, limit_s=LIMIT_S)
        environ = {"HOME": str(self.folder)}
        found = await examine(self.cluster, self.settings, asked, SystemClock(), environ)
        assert all(one.mend for one in found if one.level is not Level.OK), "each finding has its mend"
        return found

    async def wrong(self, *, probe: bool = False) -> dict[str, Level]:
        """What is not ok, but for the size of a cluster of one broker."""
        found = await self.examine(probe=probe)
        return {one.check: one.level for one in found if one.level is not Level.OK and one.check != "topics.brokers"}


@pytest.fixture
def site(cluster, admin, producer, name, tmp_path) -> Cluster:
    return Cluster(cluster, admin, producer, name, tmp_path)


async def test_where_all_is_set_up_nothing_is_found(site):
    await site.apply()
    await site.champion()
    assert await site.wrong(probe=True) == {}
    levels = {one.check: one.level for one in await site.examine()}
    assert {"kafka", "rights", "topics", "clocks", "versions", "store", "room"} <= levels.keys()


async def test_topics_that_are_missing_are_errors_where_answers_need_them(site):
    found = [one for one in await site.examine() if one.check == "topics.missing"]
    levels = {one.says.split()[-1].strip("."): one.level for one in found}
    assert levels[site.names.requests] is Level.ERROR
    assert levels[site.names.usage] is Level.WARNING
    assert {one.mend for one in found} == {"headrace topics apply"}
    assert exit_code(found) == 2


async def test_an_answer_log_that_is_compacted_kept_briefly_or_too_narrow_is_an_error(site):
    config = {"cleanup.policy": "compact", "retention.ms": "1000"}
    await site.admin.create_topic(TopicSpec(name=site.names.results, partitions=1, config=config))
    await site.apply()
    await site.champion()
    says = [one.says for one in await site.examine() if one.level is Level.ERROR]
    of_results = [said for said in says if said.startswith(f"{site.names.results}: ")]
    assert any("cleanup.policy is compact, should be delete" in said for said in of_results)
    assert any("retention.ms is 1000" in said for said in of_results)
    assert any("partitions is 1, should be 2" in said for said in of_results)


class Late(SystemClock):
    """A minute behind."""

    def now_ms(self) -> int:
        return super().now_ms() - 60_000


async def clocks(site: Cluster, *, probe: bool) -> dict[str, Level]:
    asked = Asked(wanted=(), names=site.names, probe=probe, limit_s=LIMIT_S)
    found = [one async for one in doctor._clocks(site.cluster, asked, Late())]
    logging.getLogger(__name__).warning("%s", found)  # pytest shows it where a test fails
    return {one.check: one.level for one in found}


async def test_a_record_from_the_future_tells_of_a_wrong_clock(site):
    await site.apply()
    assert await clocks(site, probe=False) == {"clocks": Level.OK}
    await site.producer.send_batch(site.names.requests, 0, [Outgoing(b"{}")])
    assert await clocks(site, probe=False) == {"clocks.records": Level.WARNING}


async def test_the_brokers_clock_is_compared_by_a_topic_that_is_deleted_again(site, backend):
    await site.apply()
    before = await site.admin.describe_topics()
    level = Level.OK if backend == "embedded" else Level.WARNING  # that broker stamps nothing
    assert await clocks(site, probe=True) == {"clocks.broker": level}
    assert (await site.admin.describe_topics()).keys() == before.keys()


async def test_a_champion_that_is_missing_gone_or_altered_is_an_error(site):
    await site.apply()
    assert await site.wrong() == {"versions.missing": Level.ERROR}
    file = await site.champion()
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert await site.wrong() == {"versions.unfit": Level.ERROR}
    file.unlink()
    assert await site.wrong() == {"versions.unfit": Level.ERROR}


async def test_an_old_api_key_is_to_be_replaced(site):
    await site.apply()
    await site.champion()
    now_ms = SystemClock().now_ms()
    keys = [
        ApiKey(id="fresh", hash="0" * 64, roles=("client",), created_at_ms=now_ms),
        ApiKey(id="old", hash="1" * 64, roles=("client",), created_at_ms=now_ms - 400 * DAY_MS),
        ApiKey(id="gone", hash="2" * 64, roles=("client",), created_at_ms=0, revoked_at_ms=1),
    ]
    await KeysWriter(site.producer, site.names.keys).publish(keys)
    found = {one.check: one for one in await site.examine()}
    assert found["keys.api"].level is Level.WARNING
    assert "1 API key" in found["keys.api"].says
    assert "old" in found["keys.api"].says


@pytest.fixture
def alone(memory_cluster, tmp_path) -> Cluster:
    """On the twin, for what lies on this machine."""
    return Cluster(memory_cluster, memory_cluster.admin(), memory_cluster.producer(), "alone", tmp_path)


async def test_what_lies_on_this_machine_is_looked_at(alone, tmp_path, monkeypatch):
    await alone.apply()
    await alone.champion()
    key = tmp_path / "key.pem"
    result = CliRunner().invoke(cli.app, ["models", "keygen", "--out", str(key)])
    assert result.exit_code == 0, result.output
    alone.settings = msgspec.structs.replace(alone.settings, signing=SigningSettings(key_file=str(key)))
    assert await alone.wrong() == {}
    long_ago = SystemClock().now_ms() / 1000 - 400 * 86400
    os.utime(key, (long_ago, long_ago))
    assert await alone.wrong() == {"keys.signing": Level.WARNING}
    key.chmod(0o644)
    assert await alone.wrong() == {"keys.signing": Level.ERROR}
    key.write_text("no key")
    assert await alone.wrong() == {"keys.signing": Level.ERROR}
    key.unlink()
    assert await alone.wrong() == {"keys.signing": Level.ERROR}
    alone.settings = msgspec.structs.replace(alone.settings, signing=SigningSettings())
    for free, level in ((2**30, Level.WARNING), (2**20, Level.ERROR)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(2**40, 2**40, free))
        assert await alone.wrong() == {"room": level}
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert await alone.wrong() == {"store": Level.WARNING}
    monkeypatch.undo()
    absent = StoreSettings(allowed=(str(tmp_path), str(tmp_path / "absent")))
    alone.settings = msgspec.structs.replace(alone.settings, store=absent)
    assert await alone.wrong() == {"store": Level.WARNING}


@pytest.mark.parametrize(("days", "level"), [(-1, Level.ERROR), (10, Level.WARNING), (100, None)])
async def test_certificates_are_looked_at_before_they_end(alone, tmp_path, days, level):
    await alone.apply()
    await alone.champion()
    now = dt.datetime.now(dt.UTC)
    issued = trustme.CA().issue_cert(
        "gateway.test", not_before=now - dt.timedelta(days=400), not_after=now + dt.timedelta(days=days)
    )
    file = tmp_path / "gateway.pem"
    issued.cert_chain_pems[0].write_to_path(file)
    gateway = GatewaySettings(tls_certfile=str(file), tls_keyfile=str(file))
    alone.settings = msgspec.structs.replace(alone.settings, gateway=gateway)
    assert await alone.wrong() == ({} if level is None else {"certificates": level})
    file.write_text("no certificate")
    assert await alone.wrong() == {"certificates": Level.ERROR}


async def test_without_kafka_the_rest_is_still_looked_at(alone):
    [port] = free_ports(1)
    alone.cluster = AioKafkaCluster(KafkaSettings(bootstrap=f"127.0.0.1:{port}"))
    found = {one.check: one.level for one in await alone.examine()}
    assert found["kafka"] is Level.ERROR
    assert found["store"] is found["room"] is Level.OK


def test_wrong_settings_are_findings_too_and_scripts_have_exit_codes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [port] = free_ports(1)
    command = ["--bootstrap", f"127.0.0.1:{port}", "doctor", "--json"]
    monkeypatch.setenv("HEADRACE_WORKER_GROUP", "mine")
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 2
    assert '"check":"settings.ignored","level":"warning"' in result.output
    Path("headrace.toml").write_text("[worker]\nmax_bach = 1\n")
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 2
    assert "Did you mean worker.max_batch?" in result.output


@pytest.mark.parametrize(
    ("levels", "code"),
    [((), 0), ((Level.OK,), 0), ((Level.OK, Level.WARNING), 1), ((Level.WARNING, Level.ERROR), 2)],
)
def test_the_exit_code_is_that_of_the_worst(levels, code):
    assert exit_code([Finding("a", level, "b") for level in levels]) == code
