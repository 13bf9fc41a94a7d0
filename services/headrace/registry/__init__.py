"""Versions and aliases on the models topic, claims and attempts on the workers topic."""
