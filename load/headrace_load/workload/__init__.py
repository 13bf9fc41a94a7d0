"""Workloads as data: what is published, when, and with what beside it."""
