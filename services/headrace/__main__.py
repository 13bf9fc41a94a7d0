"""The program: the command `headrace`, and `python -m headrace`, which is how a parent starts its members."""

import gc
import signal

LOADING_THRESHOLD = 50_000
"""Nearly all that is made while modules are loaded stays alive. Looking for garbage there takes a tenth of a start."""


def main() -> None:
    """Load the command line, and run it."""
    # Loading takes half a second. Until then Ctrl-C ends the process by its signal, as it ends any other program,
    # and not with the traceback of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(LOADING_THRESHOLD)
    from headrace import cli  # noqa: PLC0415 - not before the signal is seen to

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
