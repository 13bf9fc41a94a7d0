"""`python -m load` from a checkout is `headrace-load`."""

from headrace_load.cli import main

if __name__ == "__main__":
    main()
