"""Measuring: producers that keep to their times, readers, resources, and the result of a run."""
