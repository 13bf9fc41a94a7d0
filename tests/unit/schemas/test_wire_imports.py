"""The wire is light: a producer or a reader of answers loads nothing of the rest."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import headrace_schemas
for module in pkgutil.iter_modules(headrace_schemas.__path__):
    importlib.import_module(f"headrace_schemas.{module.name}")
print(*sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""


def test_importing_the_wire_loads_msgspec_and_nothing_else() -> None:
    run = subprocess.run([sys.executable, "-I", "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(run.stdout.split())
    assert {"headrace_schemas", "msgspec"} <= loaded
    assert not loaded & {"numpy", "numba", "torch", "aiokafka", "headrace"}


def test_every_public_name_is_there() -> None:
    import headrace_schemas

    assert all(hasattr(headrace_schemas, name) for name in headrace_schemas.__all__)
