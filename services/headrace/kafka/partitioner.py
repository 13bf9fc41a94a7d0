"""Kafka's default partitioner for keys, so that every client puts a key where the Java client does."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition, in ``range(partitions)``, of ``key``: murmur2 with the sign bit cleared, modulo the count."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
