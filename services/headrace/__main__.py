"""`python -m headrace`, which is how a parent starts its members."""

from headrace.cli import main

main()
