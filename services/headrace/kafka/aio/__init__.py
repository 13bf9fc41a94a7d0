"""A real Kafka cluster, reached by aiokafka."""

from headrace.kafka.aio.cluster import AioKafkaCluster, calmed

__all__ = ["AioKafkaCluster", "calmed"]
