"""A Kafka cluster inside the process, for tests."""

from headrace.kafka.memory.cluster import MemoryCluster, MemoryTimings
from headrace.kafka.memory.node import Faults, MemoryNode

__all__ = ["Faults", "MemoryCluster", "MemoryNode", "MemoryTimings"]
