"""Kafka for headrace: one interface, aiokafka behind it, and brokers that can be started."""
