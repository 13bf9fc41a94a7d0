"""What somebody on call has to see, and no other fault brings about: each fires an alert (tests/end_to_end/
test_alerts_of_faults.py). Requests are answered meanwhile, so their audit says little; `--watch` says what fired.
"""

from __future__ import annotations

import datetime as dt
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, connected
from headrace.model.artifact import About, Canary, assemble, load, save
from headrace.model.backends import open_backend
from headrace.model.places import as_told
from headrace.registry.compacted_topics import KeysWriter
from headrace.registry.versions import version_record
from headrace.security.api_keys import KeyRole, make_key
from headrace_load.processes import headrace, over_ours, until
from headrace_schemas.records import ModelVersion, Profile
from load.chaos import broken
from load.chaos.cluster import OF_GROUPS, PRODUCE, Passing, Way
from load.chaos.faults.actions import NAME, goes_on, made, promote, publish_bytes, swapped
from load.chaos.faults.artifacts import no_records
from load.chaos.faults.trainer import CLASSES, LIMIT_S, leading, publish_labels, said, trainers, without_store
from load.chaos.world import Fault, Worker, World, declares, started

FAULTS: list[Fault] = []
fault = declares(FAULTS)

SWALLOWED_S = 30.0
SEEN_S = 15.0
"""Longer than any alert waits before it fires, where Prometheus is hastened, but that of drift."""
DRIFT_S = 75.0
DAY_S = 86_400
OLD_S = 400 * DAY_S


@fault("network-answers-swallowed", "answers vanish on their way for 30 s, while connections stay open")
async def answers_swallowed(world: World) -> None:
    """Nothing that workers produce reaches the broker, and they hear nothing of it."""

    async def hook(passing: Passing) -> bool:
        return passing.way is not Way.TO_BROKER or passing.request.api != PRODUCE

    with world.cluster.hindered(hook=hook):
        await world.wait(SWALLOWED_S)
    world.cluster.cut()


@fault("model-breaks", "a model that fails on every text, its canaries too", about="worker", follows=True)
async def model_breaks(world: World) -> None:
    """A worker whose model breaks: it stops answering, and goes on when the model works again."""
    text = "the canary"
    network = load(str(world.model)).network
    label = network.labels[int(open_backend("cpu", load(str(world.model))).classify([text.encode()]).labels[0])]
    version = _version(world, "with-a-canary", About(canaries=(Canary(text, label),)))
    await promote(world, version)
    await swapped(world, version.version)
    worker = await world.workers.start("breaks", program=broken.command("breaking_model"))
    await world.workers.leave("w0")
    await world.until(lambda: worker.owns_partitions, "partitions of the worker that breaks")
    worker.signal(signal.SIGUSR1)
    await world.until(lambda: bool(worker.events("breaker.open")), "its word that the model is broken")
    await world.wait(SEEN_S)
    worker.signal(signal.SIGUSR2)
    await goes_on(world)


@fault("store-closed-to-one", "one of two workers may not read the new version's file", about="trainer", follows=True)
async def store_closed_to_one(world: World) -> None:
    """The champion moves to a file in a place that one worker is not allowed to read from."""
    await world.workers.leave("w1")
    await world.workers.start("narrow", sets={"store.allowed": str(world.folder / "published")})
    version = made(world, "elsewhere")
    await promote(world, version)
    await world.until(
        lambda: bool(world.workers.running["narrow"].events("model.load_failed")), "the narrow worker's word of it"
    )
    await world.until(
        lambda: any(one["version"] == version.version for one in world.workers.running["w0"].events("model.swapped")),
        "the other's swap",
    )
    await world.wait(SEEN_S)
    await world.workers.leave("narrow")
    await world.workers.start("w1")
    await goes_on(world)


@fault(
    "artifacts-of-other-texts",
    "champion moved to a version that was tested on other texts",
    about="trainer",
    follows=True,
)
async def other_texts(world: World) -> None:
    """The version's test rows all had one label, so what it answers here is not what it answered there."""
    labels = load(str(world.model)).labels
    profile = Profile(labels=(1.0, *[0.0] * (len(labels) - 1)), confidence=(1.0, *[0.0] * 9))
    version = _version(world, "of-other-texts", About(profile=profile))
    await promote(world, version)
    await swapped(world, version.version)
    await world.wait(DRIFT_S)


@fault("trainer-coordinator-alone", "the leading trainer loses its group's coordinator", follows=True)
async def trainer_without_coordinator(world: World) -> None:
    """Of one trainer nothing that concerns groups reaches the broker, so it leads no more, and nobody does."""
    async with trainers(world) as of_run:
        trainer = await of_run.start("trainer")
        await said(trainer, "trainer.leads")

        async def hook(passing: Passing) -> bool:
            of_trainer = passing.way is Way.TO_BROKER and passing.request.client == trainer.name
            return not (of_trainer and passing.request.api in OF_GROUPS)

        with world.cluster.hindered(hook=hook):
            await said(trainer, "trainer.lost")
            await world.wait(SEEN_S)


@fault("trainer-store-stays-away", "no store for any of three trainings", follows=True)
async def store_stays_away(world: World) -> None:
    """There is no store, and people order one training after the other."""
    async with trainers(world) as of_run:
        trainer = await of_run.start("trainer")
        with without_store(await leading(trainer), of_run):
            await publish_labels(world)
            for failed in range(1, 4):
                await until(
                    lambda failed=failed: len(trainer.events("training.failed")) >= failed,  # type: ignore[misc]
                    f"training {failed} that fails",
                    LIMIT_S,
                    trainer.check,
                )
                await headrace("models", "train", "--now", environment=world.system.environment())
            await world.wait(SEEN_S / 3)


@fault("labels-rubbish", "rubbish on the labels topic of a trainer that leads", about="trainer", follows=True)
async def labels_rubbish(world: World) -> None:
    """A producer of labels changes its format: of what comes then, no label can be used."""
    async with trainers(world) as of_run:
        trainer = await of_run.start("trainer")
        await said(trainer, "trainer.leads")
        await publish_labels(world, 40)
        rubbish = [Outgoing(value, f"rubbish-{at}".encode()) for at, value in enumerate(no_records(world))]
        await publish_bytes(world.system, world.system.labels, *rubbish)
        await said(trainer, "labels.refused")
        await world.wait(SEEN_S)


@fault(
    "teachers-bad",
    "a teacher that nobody reaches, one that is dear, one that is wrong",
    about="trainer",
    follows=True,
)
async def bad_teachers(world: World) -> None:
    """Three labellers after each other: one whose teacher is away, one with a small budget, one whose teacher says the
    same of every text, and people said something else.
    """
    await publish_labels(world, 60)
    program = world.folder / "teacher.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'n': json.loads(line)['n'], 'label': 'sky'}), flush=True)\n"
    )
    wrong = f"program:{shlex.quote(sys.executable)} {shlex.quote(str(program))}"
    away = f"program:{shlex.quote(str(world.folder / 'no-such-program'))}"
    async with labeller(world, "away", away, {"labeller.tries": "100", "labeller.longest_wait": "1"}) as one:
        await said(one, "teacher.failed")
        await world.wait(2 * SEEN_S)
    async with labeller(world, "dear", wrong, {"labeller.day_texts": "20"}) as one:
        await said(one, "labeller.budget")
        await world.wait(SEEN_S)
    async with labeller(world, "wrong", wrong, {"labeller.gold": "1", "labeller.gold_least": "5"}) as one:
        await said(one, "labeller.does_not_ask")
        await world.wait(SEEN_S)


@asynccontextmanager
async def labeller(world: World, name: str, teacher: str, sets: Mapping[str, str]) -> AsyncIterator[Worker]:
    """A labeller with that teacher while the block runs."""
    labels = world.folder / "labels.toml"
    labels.write_text("".join(f"[labels.{label}]\n" for label in CLASSES), encoding="utf-8")
    given = {
        "labeller.name": name,
        "labeller.group": f"{world.system.models}-{name}",
        "labeller.random": "1",
        "labeller.batch": "8",
        "labeller.gold": "0",
        **sets,
    }
    environ = over_ours({**world.system.environment(), "HEADRACE_KAFKA__BOOTSTRAP": world.cluster.behind})
    arguments = ("labeller", "--teacher", teacher, "--labels", str(labels))
    running = await started(f"labeller-{name}", arguments, sets=given, environ=environ, folder=world.folder)
    try:
        yield running
    finally:
        await running.stop()


@fault("gateway-old-keys", "a gateway whose certificate ends tomorrow and whose keys are old", about="client")
async def old_keys(world: World) -> None:
    """An API key and a signing key that were made 400 days ago, and a certificate that ends tomorrow."""
    _, key = make_key({KeyRole.CLIENT}, now_ms=SystemClock().now_ms() - OLD_S * 1000)
    async with connected(AioKafkaCluster(world.system.kafka_settings()).producer()) as producer:
        await KeysWriter(producer, world.system.keys).publish([key])
    certificate, own, signing = (world.folder / name for name in ("gateway.pem", "gateway-key.pem", "signing.pem"))
    _certify(certificate, own, dt.timedelta(days=1))
    await headrace("models", "keygen", "--out", str(signing), environment=world.system.environment())
    made_s = signing.stat().st_mtime - OLD_S
    os.utime(signing, (made_s, made_s))
    sets = {
        "gateway.port": "0",
        "gateway.group": f"{world.system.results}-gateway",
        "gateway.tls_certfile": str(certificate),
        "gateway.tls_keyfile": str(own),
        "signing.key_file": str(signing),
    }
    environ = over_ours(world.system.environment())
    async with AsyncExitStack() as stack:
        gateway = await started("gateway", ("gateway",), sets=sets, environ=environ, folder=world.folder)
        stack.push_async_callback(gateway.stop)
        await said(gateway, "gateway.listening")
        await world.wait(SEEN_S)


SMALL_DISK = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


@fault("worker-small-disk", "a worker whose temporary files have 16 MB", about="worker")
async def small_disk(world: World) -> None:
    """A worker has a disk of its own for temporary files, in a namespace of its own: it needs root, and Linux."""
    disk = world.folder / "small"
    disk.mkdir()
    mounted = 'mount -t tmpfs -o size=16m small "$0" && exec "$@"'
    program = (*SMALL_DISK, mounted, str(disk), sys.executable, "-m", "headrace")
    worker = await world.workers.start("small", program=program, environment={"TMPDIR": str(disk)})
    assert worker.code is None, "the worker with a small disk ended"
    await world.wait(SEEN_S)
    await world.workers.leave("small")


def _version(world: World, name: str, about: About) -> ModelVersion:
    """A version of the run's own network, with what else is known of it."""
    file = world.folder / "store" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    artifact = assemble(load(str(world.model)).network, msgspec.structs.replace(about, parent=name))
    save(artifact, str(file))
    return version_record(artifact, name=NAME, where=as_told(str(file)), now_ms=SystemClock().now_ms())


def _certify(certificate: Path, key: Path, lasts: dt.timedelta) -> None:
    """Write a certificate for this machine that it signed itself, and its private key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + lasts)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
