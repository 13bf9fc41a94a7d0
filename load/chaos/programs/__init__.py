"""`headrace` with one thing wrong in its process, in place of `python -m headrace`."""
