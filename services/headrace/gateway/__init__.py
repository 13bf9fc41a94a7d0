"""The service that answers over HTTP: callers without a Kafka client publish texts and get their labels."""
