"""The generated documents are current, and the AsyncAPI document is what AsyncAPI 3.0 asks for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headrace_schemas import topics
from headrace_schemas.asyncapi import GENERATED, document, main, render
from headrace_schemas.headers import JSON

DOCUMENT = document()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = DOCUMENT
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def test_the_generated_files_are_current() -> None:
    out = io.StringIO()
    assert main(["--check"], out) == 0, out.getvalue()


def test_the_check_names_a_stale_a_missing_and_a_left_over_file_and_writing_mends_them(tmp_path: Path) -> None:
    assert main([], io.StringIO(), tmp_path) == 0
    (tmp_path / "asyncapi.json").write_text("{}", encoding="ascii")
    (tmp_path / "attempt.schema.json").unlink()
    (tmp_path / "left-over.json").write_text("{}", encoding="ascii")
    out = io.StringIO()
    assert main(["--check"], out, tmp_path) == 1
    assert [line.split(" ")[0].rpartition("/")[2] for line in out.getvalue().splitlines()] == [
        "asyncapi.json",
        "attempt.schema.json",
        "left-over.json",
    ]
    assert main([], io.StringIO(), tmp_path) == 0
    assert main(["--check"], io.StringIO(), tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in GENERATED.glob("*.json")}


def test_the_document_has_what_asyncapi_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert DOCUMENT["defaultContentType"] == JSON
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert resolve(operation["channel"]["$ref"]) in DOCUMENT["channels"].values()
    for channel in DOCUMENT["channels"].values():
        assert channel["messages"]
        assert channel["bindings"]["kafka"]["bindingVersion"] == "0.5.0"


def test_every_reference_resolves_and_every_component_is_referred_to() -> None:
    found = set(references(DOCUMENT))
    for reference in found:
        resolve(reference)
    components = DOCUMENT["components"]
    assert {f"#/components/{kind}/{name}" for kind in components for name in components[kind]} <= found


def test_every_topic_is_a_channel_with_its_settings() -> None:
    for topic in topics():
        channel = DOCUMENT["channels"][topic.name]
        assert channel["address"] == topic.name
        written = channel["bindings"]["kafka"]["topicConfiguration"]
        plain = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in written.items()}
        assert plain == topic.settings()


def test_what_headrace_receives_and_sends_is_said() -> None:
    actions = {
        (o["action"], o["channel"]["$ref"].removeprefix("#/channels/classify."))
        for o in DOCUMENT["operations"].values()
    }
    assert {("receive", "requests"), ("send", "results"), ("send", "dead-letters"), ("receive", "labels")} <= actions
    assert ("send", "labels") not in actions


def test_the_payloads_are_draft_07_that_asyncapi_tools_read() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)
        assert not {"prefixItems", "$defs", "discriminator"} & schema.keys()


def test_the_record_schemas_are_valid_schemas() -> None:
    for name, content in render().items():
        if name.endswith(".schema.json"):
            jsonschema.Draft202012Validator.check_schema(json.loads(content))


@pytest.mark.parametrize("name", sorted(render()))
def test_descriptions_carry_no_indentation_and_no_sphinx_markup(name: str) -> None:
    content = render()[name].decode()
    assert "\\n    " not in content
    assert "``" not in content
    assert ":mod:" not in content
