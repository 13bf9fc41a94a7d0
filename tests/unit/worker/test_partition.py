"""Each part of a partition's state has one writer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import headrace.worker
from headrace.worker.partitions.partition import Partition

ROOM = Path(headrace.worker.__file__).parent
PARTS = {"queue", "in_flight", "progress", "attempts"}
WRITERS = {
    "alive": {"partition"},
    "unanswerable": {"resume"},
    "end_seen": {"watchdog"},
    "settled": {"fetch"},
    "committed": {"commit"},
    "paused": {"partition"},
}


def written() -> Iterator[tuple[str, ast.Attribute]]:
    """Every attribute of something other than ``self`` that is assigned in the room, with its module's name."""
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield path.stem, node


def test_the_parts_of_a_partition_are_written_by_their_own_methods_alone():
    from_outside = [
        (module, ast.unparse(node))
        for module, node in written()
        if isinstance(node.value, ast.Attribute) and node.value.attr in PARTS
    ]
    assert from_outside == []


def test_each_plain_field_of_a_partition_has_the_one_writer_that_its_docstring_names():
    found: dict[str, set[str]] = {}
    for module, node in written():
        partition = isinstance(node.value, ast.Name) and (node.value.id == "partition" or module == "partition")
        if node.attr in WRITERS and partition:
            found.setdefault(node.attr, set()).add(module)
    assert {name: found[name] - {"partition"} or found[name] for name in found} == WRITERS


def test_a_partition_has_no_other_fields():
    assert vars(Partition(("requests", 0))).keys() == {"name", *PARTS, *WRITERS}
