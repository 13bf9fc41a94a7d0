"""A Kafka cluster inside the process, for tests."""

from headrace.kafka.memory.broker import Faults, MemoryTimings
from headrace.kafka.memory.cluster import MemoryCluster, MemoryNode

__all__ = ["Faults", "MemoryCluster", "MemoryNode", "MemoryTimings"]
