"""Faults, by what they happen to."""
