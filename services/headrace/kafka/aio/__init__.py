"""A real Kafka cluster, reached by aiokafka."""

from headrace.kafka.aio.cluster import AioKafkaCluster

__all__ = ["AioKafkaCluster"]
