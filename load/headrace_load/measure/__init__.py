"""Measuring: producers that keep to their times, readers, resources, and what a run came to."""
