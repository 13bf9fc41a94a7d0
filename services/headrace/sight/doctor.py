"""Whether all is set up right: settings, Kafka, rights, topics, clocks, store, keys, versions, room and certificates.

Each check is bounded in time, fails by itself, and says what mends what it finds. Nothing is written, unless a probe of
the broker's clock is asked for: Kafka has no request that tells the time, so only a record that a broker stamps does.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import stat
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from headrace.config import Settings
from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.kafka.acls import Names, Right, Role, rights_of
from headrace.kafka.interface import (
    Admin,
    Cluster,
    KafkaError,
    NotAuthorizedError,
    Outgoing,
    Permitted,
    TopicPartition,
    TopicSpec,
    connected,
)
from headrace.kafka.range_reader import read_ranges
from headrace.kafka.settings import client_options
from headrace.kafka.topics import Drift, Plan, WantedTopic
from headrace.kafka.topics import look as look_at_topics
from headrace.model import store
from headrace.model.errors import StoreError
from headrace.model.places import Location
from headrace.model.signing import signer
from headrace.registry.compacted_topics import KeysLog, ModelsLog
from headrace.registry.versions import find_version, is_location, load_named
from headrace.security.certificates import day, end_of, served_end
from headrace.sight.findings import Finding, Level
from headrace.sight.surroundings import certificate_files, folders_of, nearest

LIMIT_S = 20.0
SKEW_S = 5.0
"""Clocks that differ by more make deadlines and lag in seconds wrong by as much."""
SOON_S = 30 * 86400.0
"""A certificate that ends within this time should be renewed now."""
OLD_S = 365 * 86400.0
"""A key that is older should be replaced."""
LITTLE, TOO_LITTLE = 2 * 2**30, 256 * 2**20
"""Free bytes on a disk: the largest artifact takes 2 GiB, and a cache of kernels some tens of MiB."""

LogAppendTime = {"message.timestamp.type": "LogAppendTime"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to check: the topics as they should be, the names that rights are given on, and the roles of this user.

    Without ``roles`` it is said for which of them the rights are enough. With ``probe`` a topic is made and deleted.
    """

    wanted: tuple[WantedTopic, ...]
    names: Names
    roles: tuple[Role, ...] = ()
    probe: bool = False
    limit_s: float = LIMIT_S


async def examine(
    cluster: Cluster, settings: Settings, asked: Asked, clock: Clock, environ: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Every finding, in the order of the checks. Raises nothing that a check meets."""
    found = await _bounded("kafka", _reachable(cluster), asked)
    if any(one.check == "kafka" and one.level is Level.ERROR for one in found):
        says = "Without Kafka nothing is known of rights, topics, clocks, API keys and versions."
        found += (Finding("kafka.rest", Level.WARNING, says, "headrace doctor    # again, when Kafka answers"),)
    else:
        parts = [
            _bounded("rights", _rights(cluster, asked), asked),
            _bounded("topics", _topics(cluster, asked), asked),
            _bounded("clocks", _clocks(cluster, asked, clock), asked),
            _bounded("api_keys", _api_keys(cluster, settings, clock), asked),
            _bounded("versions", _versions(cluster, settings), asked),
        ]
        found += tuple(one for part in await asyncio.gather(*parts) for one in part)
    found += await _bounded("store", _store(settings), asked)
    found += await _bounded("keys", _now(_keys(settings, clock)), asked)
    found += await _bounded("room", _now(_room(settings, environ)), asked)
    return found + await _bounded("certificates", _certificates(settings, clock), asked)


MENDS = {
    "kafka": "headrace config show    # says where kafka.bootstrap and the login were set",
    "rights": "headrace topics acl",
    "topics": "headrace topics describe",
    "clocks": "headrace topics describe",
    "versions": "headrace models list",
}
"""What mends a check that could not be made, where it is not the settings."""


async def _bounded(check: str, findings: AsyncIterator[Finding], asked: Asked) -> tuple[Finding, ...]:
    found: list[Finding] = []
    mend = MENDS.get(check, "headrace config show")
    try:
        async with asyncio.timeout(asked.limit_s):
            async for one in findings:
                found.append(one)  # noqa: PERF401 - what came before a time-out stays
    except TimeoutError:
        found.append(Finding(check, Level.ERROR, f"There was no answer within {asked.limit_s:g} s.", mend))
    except (KafkaError, UserError) as error:
        found.append(Finding(check, Level.ERROR, str(error) or type(error).__name__, mend))
    return tuple(found)


async def _now(findings: Iterator[Finding]) -> AsyncIterator[Finding]:
    for one in findings:
        yield one


async def _reachable(cluster: Cluster) -> AsyncIterator[Finding]:
    async with connected(cluster.admin()) as admin:
        count = await admin.broker_count()
    yield Finding("kafka", Level.OK, f"Kafka at {cluster.bootstrap} answers: {quantity(count, 'broker')}.")


async def _rights(cluster: Cluster, asked: Asked) -> AsyncIterator[Finding]:
    rights = {role: rights_of(role, asked.names) for role in Role}
    topics = {one.name for of_role in rights.values() for one in of_role if one.resource == "topic"}
    groups = {one.name for of_role in rights.values() for one in of_role if one.resource == "group"}
    async with connected(cluster.admin()) as admin:
        permitted = await admin.permitted(topics, groups)
    if all(told is None for told in permitted.topics.values()):
        yield Finding("rights", Level.OK, "The brokers don't tell what this user may do.")
        return
    lacking = {role: tuple(_lacking(rights[role], permitted)) for role in Role}
    for role in asked.roles:
        if lacking[role]:
            yield Finding(
                f"rights.{role}",
                Level.ERROR,
                f"This user lacks what a {role} needs: {'; '.join(lacking[role])}.",
                f"headrace topics acl --role {role}",
            )
        else:
            yield Finding(f"rights.{role}", Level.OK, f"This user may do all that a {role} needs.")
    if not asked.roles:
        enough = [role for role in Role if not lacking[role]]
        if enough:
            yield Finding("rights", Level.OK, f"This user may do all that these roles need: {', '.join(enough)}.")
        else:
            yield Finding(
                "rights", Level.WARNING, "This user has not all the rights of any role.", "headrace topics acl"
            )


def _lacking(rights: Sequence[Right], permitted: Permitted) -> Iterator[str]:
    for right in rights:
        told = (permitted.topics if right.resource == "topic" else permitted.groups).get(right.name)
        if told is not None and (missing := [one for one in right.operations if one not in told]):
            yield f"{', '.join(missing)} on the {right.resource} {right.name}"


async def _topics(cluster: Cluster, asked: Asked) -> AsyncIterator[Finding]:
    async with connected(cluster.admin()) as admin:
        try:
            plan = await look_at_topics(admin, asked.wanted)
        except NotAuthorizedError as error:
            says = f"The topics can't be looked at: {error}"
            yield Finding("topics", Level.WARNING, says, "headrace topics acl --role operator")
            return
    for one in topic_findings(plan, asked.names):
        yield one


def topic_findings(plan: Plan, names: Names) -> Iterator[Finding]:
    """What ``plan`` says of the topics."""
    needed = {names.requests, names.results, names.dead_letters, names.models, names.workers}
    for spec in plan.create:
        level = Level.ERROR if spec.name in needed else Level.WARNING
        yield Finding("topics.missing", level, f"There is no topic {spec.name}.", "headrace topics apply")
    for drift in plan.drift:
        yield _drifted(drift, names)
    if plan.shortcoming is not None:
        yield Finding("topics.brokers", Level.WARNING, plan.shortcoming, "docs/guarantees.md")
    if not plan.create and not plan.drift:
        yield Finding("topics", Level.OK, "Every topic is there and as it should be.")


def _drifted(drift: Drift, names: Names) -> Finding:
    says = f"{drift.topic}: {drift.key} is {drift.found}, should be {drift.wanted}."
    if drift.key == "partitions":
        return Finding("topics.partitions", Level.ERROR, says, "headrace topics apply --grow")
    if drift.key == "replication":
        return Finding("topics.replication", Level.WARNING, says, "kafka-reassign-partitions.sh")
    # A compacted answer log loses answers, and a models topic that is not compacted loses versions.
    level = Level.ERROR if drift.key == "cleanup.policy" else Level.WARNING
    if drift.key == "retention.ms" and drift.topic in (names.requests, names.results):
        level = Level.ERROR if _shorter(drift) else Level.WARNING
    setting = f"{drift.key}={drift.wanted}"
    return Finding(
        "topics.settings",
        level,
        says,
        f"kafka-configs.sh --alter --entity-type topics --entity-name {drift.topic} --add-config {setting}",
    )


def _shorter(drift: Drift) -> bool:
    try:
        found, wanted = int(drift.found), int(drift.wanted)
    except ValueError:
        return False
    return 0 <= found < wanted or (wanted < 0 <= found)


async def _clocks(cluster: Cluster, asked: Asked, clock: Clock) -> AsyncIterator[Finding]:
    said = False
    # Brokers stamp the records of these topics, where they can.
    for topic in (asked.names.requests, asked.names.results):
        ahead_s = await _ahead(cluster, topic, clock)
        if ahead_s is not None and ahead_s > SKEW_S:
            said = True
            yield Finding(
                "clocks.records",
                Level.WARNING,
                f"The newest record of {topic} was stamped {ahead_s:,.0f} s in the future: the broker's clock or this "
                "machine's is wrong.",
                "chronyc tracking    # on both machines",
            )
    if asked.probe:
        try:
            async with connected(cluster.admin()) as admin:
                yield await _probed(cluster, admin, asked, clock)
        except KafkaError as error:
            says = f"The broker's clock can't be compared: {error}"
            yield Finding("clocks.broker", Level.WARNING, says, "headrace doctor    # as an administrator")
    elif not said:
        yield Finding(
            "clocks", Level.OK, "No record is from the future. --probe compares the broker's clock with this one."
        )


async def _ahead(cluster: Cluster, topic: str, clock: Clock) -> float | None:
    """By how many seconds the newest record of ``topic`` is ahead of this machine's clock; None without any."""
    newest: int | None = None
    async with connected(cluster.consumer()) as consumer:
        names = [TopicPartition(topic, number) for number in await consumer.partitions_of(topic)]
        if not names:
            return None
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        starts = {name: max(begins[name], ends[name] - 1) for name in names}
        async for records in read_ranges(consumer, starts, ends):
            newest = max([newest or 0, *(record.timestamp for record in records)])
    return None if newest is None else (newest - clock.now_ms()) / 1000


async def _probed(cluster: Cluster, admin: Admin, asked: Asked, clock: Clock) -> Finding:
    topic = f"{asked.names.requests}-doctor-{uuid.uuid4().hex[:8]}"
    await admin.create_topic(TopicSpec(name=topic, partitions=1, config=LogAppendTime))
    try:
        name = TopicPartition(topic, 0)
        async with connected(cluster.producer()) as producer, connected(cluster.consumer()) as consumer:
            before = clock.now_ms()
            # A time that no clock shows: a broker that lets it stand has not stamped the record.
            await producer.send_batch(topic, 0, [Outgoing(b"{}", timestamp_ms=1)])
            after = clock.now_ms()
            async for records in read_ranges(consumer, {name: 0}, {name: 1}):
                stamped = records[0].timestamp
    finally:
        await admin.delete_topic(topic)
    if stamped == 1:
        return Finding("clocks.broker", Level.OK, "This broker stamps no records, so its clock can't be compared.")
    apart_s = max(before - stamped, stamped - after, 0) / 1000
    if apart_s > SKEW_S:
        says = f"The broker's clock and this machine's are {apart_s:,.1f} s apart."
        return Finding("clocks.broker", Level.WARNING, says, "chronyc tracking    # on both machines")
    return Finding("clocks.broker", Level.OK, f"The broker's clock and this machine's agree within {apart_s:.1f} s.")


async def _api_keys(cluster: Cluster, settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    try:
        async with connected(KeysLog(cluster, settings.topics.names().keys)) as log:
            keys = [key for key in log.keys.values() if key.revoked_at_ms is None]
    except (KafkaError, UserError):
        return  # without the topic nobody uses the gateway, and what may not be seen is the rights' matter
    old = [key.id for key in keys if clock.now_ms() - key.created_at_ms > OLD_S * 1000]
    if old:
        shown = ", ".join(old[:5]) + (f" and {len(old) - 5:,} more" if len(old) > 5 else "")
        yield Finding(
            "keys.api",
            Level.WARNING,
            f"{quantity(len(old), 'API key')} are older than a year: {shown}.",
            f"headrace keys revoke {old[0]}    # once its callers have another one by `headrace keys add`",
        )
    elif keys:
        yield Finding("keys.api", Level.OK, f"{quantity(len(keys), 'API key')}, none older than a year.")


async def _versions(cluster: Cluster, settings: Settings) -> AsyncIterator[Finding]:
    from headrace.worker.versions import Background, open_model, open_version  # noqa: PLC0415 - compiling takes seconds

    model, backend, trusted = settings.worker.model, settings.worker.backend, settings.signing.trusted
    background = Background()
    if is_location(model):
        try:
            artifact = await background.run(model, lambda: load_named(model))
            await background.run(model, lambda: open_model(artifact, backend, artifact.version))
        except UserError as error:
            yield Finding("versions", Level.ERROR, f"worker.model: {error}", "headrace --set worker.model=... worker")
            return
        yield Finding("versions", Level.OK, f"{model} loads and answers its canaries.")
        return
    async with connected(ModelsLog(cluster, settings.topics.names().models)) as log:
        try:
            record = find_version(log, settings.worker.model_name, model)
        except UserError as error:
            yield Finding("versions.missing", Level.ERROR, str(error), "headrace models list")
            return
    try:
        await background.run(record.version, lambda: open_version(record, backend, trusted, settings.places()))
    except UserError as error:
        mend = f"headrace models show {record.version}"
        yield Finding("versions.unfit", Level.ERROR, f"{model} is {record.version}, which can't answer: {error}", mend)
        return
    says = f"{model} is {record.version}: its file has the digest recorded, loads, and answers its canaries."
    yield Finding("versions", Level.OK, says)


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    from headrace.worker.versions import Background  # noqa: PLC0415 - as above

    for place in settings.places().allowed:
        try:
            # A store that hangs must not keep this process.
            await Background().run(place.uri, functools.partial(store.size_of, Location(place, ("headrace-doctor",))))
        except StoreError as error:
            yield Finding("store", Level.ERROR, f"The store {place.uri} can't be read: {error}", "headrace config show")
            continue
        if place.scheme != "file":
            yield Finding("store", Level.OK, f"The store {place.uri} answers.")
        else:
            yield _folder(Path("/", *place.folder))


def _folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("store", Level.WARNING, f"There is no folder {folder} yet.", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        says = f"This user can't write {folder}. A worker need not, a trainer and `headrace models publish` must."
        return Finding("store", Level.WARNING, says, f"chown {os.geteuid()} {folder}")
    return Finding("store", Level.OK, f"The store {folder} can be read and written.")


def _keys(settings: Settings, clock: Clock) -> Iterator[Finding]:
    file = settings.signing.key_file
    if file is None:
        if settings.signing.trusted:
            yield Finding("keys.signing", Level.OK, "Versions need a signature; this process signs none.")
        return
    try:
        signer(file, settings.signing.trusted)
    except UserError as error:
        yield Finding("keys.signing", Level.ERROR, str(error), "headrace models keygen --out FILE")
        return
    found = Path(file).stat()
    if found.st_mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        says = f"Others can read the signing key {file} ({stat.filemode(found.st_mode)})."
        yield Finding("keys.signing", Level.ERROR, says, f"chmod 600 {file}")
    elif clock.now_ms() / 1000 - found.st_mtime > OLD_S:
        says = f"The signing key {file} is from {day(found.st_mtime)}, more than a year ago."
        yield Finding("keys.signing", Level.WARNING, says, "headrace models keygen --out FILE")
    else:
        yield Finding("keys.signing", Level.OK, f"The signing key {file} fits, and is from {day(found.st_mtime)}.")


def _room(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    for what, folder in folders_of(settings, environ).items():
        there = nearest(folder)
        free = shutil.disk_usage(there).free
        says = f"{free / 2**30:,.1f} GiB are free for the {what} ({there})."
        mend = "headrace models prune --keep 5    # or give the disk more room"
        if free < TOO_LITTLE:
            yield Finding("room", Level.ERROR, says, mend)
        elif free < LITTLE:
            yield Finding("room", Level.WARNING, says, mend)
        else:
            yield Finding("room", Level.OK, says)


async def _certificates(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    now_s = clock.now_ms() / 1000
    for name, file in certificate_files(settings).items():
        try:
            end_s = end_of(Path(file))
        except UserError as error:
            yield Finding("certificates", Level.ERROR, f"{name}: {error}", "headrace config show")
            continue
        yield _ends(f"The certificate of {name} ({file})", end_s, now_s)
    if settings.kafka.security_protocol.endswith("SSL"):
        context = client_options(settings.kafka)["ssl_context"]
        for address in settings.kafka.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                end = await served_end(host.strip("[]"), int(port), context)
            except (OSError, ValueError) as error:
                says = f"The certificate of the broker at {address} can't be looked at: {error}"
                yield Finding("certificates", Level.WARNING, says, f"openssl s_client -connect {address}")
                continue
            if end is not None:
                yield _ends(f"The certificate of the broker at {address}", end, now_s)


def _ends(what: str, end_s: float, now_s: float) -> Finding:
    if end_s <= now_s:
        return Finding("certificates", Level.ERROR, f"{what} ended on {day(end_s)}.", "docs/security.md")
    if end_s - now_s < SOON_S:
        return Finding("certificates", Level.WARNING, f"{what} ends on {day(end_s)}.", "docs/security.md")
    return Finding("certificates", Level.OK, f"{what} is good until {day(end_s)}.")


def exit_code(findings: Collection[Finding]) -> int:
    """0 where all is well, 1 for warnings, 2 for errors."""
    return max((list(Level).index(one.level) for one in findings), default=0)
