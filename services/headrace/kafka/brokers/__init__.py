"""Kafka brokers of our own: started for a demo, a test or a developer, and gone with their handle."""
