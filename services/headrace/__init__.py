"""headrace: event-driven text classification on Apache Kafka."""
