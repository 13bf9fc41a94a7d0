"""A Kafka cluster inside the process, for tests."""

from tests.support.memory_kafka.broker import Faults, MemoryTimings
from tests.support.memory_kafka.cluster import MemoryCluster, MemoryNode

__all__ = ["Faults", "MemoryCluster", "MemoryNode", "MemoryTimings"]
