"""Kafka for headrace: one interface, aiokafka and an in-memory twin behind it, and brokers to start."""
