"""Workloads as data: which requests are published, when, and with which keys, headers and rubbish."""
