"""Rows for a training: read, validated, split, and made into features."""
