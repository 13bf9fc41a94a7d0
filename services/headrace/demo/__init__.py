"""The parts of `headrace demo`: everything at work on one machine, on real text, with its own audit at the end."""
