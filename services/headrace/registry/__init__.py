"""Versions, aliases and claims on the models topic."""
