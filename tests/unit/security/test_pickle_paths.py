"""No source file of the project turns foreign bytes into anything but data: each is read for the ways to do so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import parsed

ROOT = Path(__file__).parents[3]
SOURCES = ("services", "schemas", "load/headrace_load")

# Modules whose loading, receiving or calling makes objects by running what the bytes say.
MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve", "dbm"),
    *("multiprocessing", "concurrent.futures.process", "xmlrpc"),
    *("torch.distributed.run", "torch.distributed.elastic", "torch.distributed.launcher", "torch.distributed.rpc"),
    *("torch.multiprocessing", "torch.package", "torch.hub"),
}
CALLS = {
    *("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list"),
    *("send_object_list", "recv_object_list", "ProcessPoolExecutor", "read_pickle", "unsafe_load", "full_load"),
}


def found_in(source: str) -> list[str]:
    """The ways from bytes to code in ``source``, each with its line."""
    return [f"line {line}: {what}" for line, what in _found(parsed(source))]


def _found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from _imported(node)
            case ast.Constant(value=str(text)) if text in MODULES and "." in text:
                yield node.lineno, text  # python -m, import_module
            case ast.Attribute(attr=name) if name in CALLS:
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="load"), keywords=keywords):
                if module == "torch" or (
                    module in ("np", "numpy") and not _is_given(keywords, "allow_pickle", value=False)
                ):
                    yield node.lineno, f"{module}.load"
            case ast.Call(keywords=keywords) if any(word.arg == "allow_pickle" for word in keywords):
                if not _is_given(keywords, "allow_pickle", value=False):
                    yield node.lineno, "allow_pickle"


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for name in node.names:
        if _is_module(module + name.name) or name.name in CALLS:
            yield node.lineno, module + name.name


def _is_module(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in MODULES)


def _is_given(keywords: list[ast.keyword], name: str, *, value: bool) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is value for word in keywords
    )


def test_no_source_file_unpickles_or_hands_objects_to_what_does():
    files = [path for place in SOURCES for path in sorted((ROOT / place).rglob("*.py"))]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): ways for path in files if (ways := found_in(path.read_text("utf-8")))}
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from multiprocessing.connection import Listener",
        "from torch.distributed.elastic import agent",
        "from torch.distributed import run",
        "from concurrent.futures import ProcessPoolExecutor",
        "command = ('-m', 'torch.distributed.run')",
        "distributed.all_gather_object(values, value)",
        "torch.load(file, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=flag)",
        "np.lib.format.read_array(file, allow_pickle=True)",
    ],
)
def test_each_way_to_code_is_seen(source):
    assert found_in(source)


def test_reading_plain_arrays_is_allowed():
    assert not found_in("np.load(path, allow_pickle=False)")
