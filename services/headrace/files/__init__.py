"""Rows of any file that people keep texts in, read as a stream: see :mod:`headrace.files.table`."""
