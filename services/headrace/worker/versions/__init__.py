"""Which version answers: following an alias, loading a version, and swapping to it."""
