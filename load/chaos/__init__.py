"""Faults on real Apache Kafka under a steady stream, each run ended by a checker over its history.

After Jepsen: what clients were told is written down, faults happen in between, and afterwards the history either keeps
the promise or not.
"""
