"""A real Kafka cluster, reached by aiokafka."""

from headrace.kafka.aio.chatter import calmed
from headrace.kafka.aio.cluster import AioKafkaCluster

__all__ = ["AioKafkaCluster", "calmed"]
