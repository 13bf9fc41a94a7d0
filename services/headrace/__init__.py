"""headrace: event-driven text classification on Apache Kafka."""

__version__: str


def __getattr__(name: str) -> str:
    # Looked up when it is asked for: that reads the installed packages, and most programs never ask.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("headrace")
