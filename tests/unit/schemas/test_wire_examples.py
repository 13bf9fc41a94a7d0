"""The golden examples: each decodes, loses nothing when encoded again, and fits the generated schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

import headrace_schemas
from headrace_schemas import (
    JSON,
    MSGPACK,
    TEXT,
    ClassifyRequest,
    dead_letter_from_record,
    dead_letter_headers,
    decode_api_key,
    decode_dead_letter,
    decode_idempotent_call,
    decode_label,
    decode_machine_label,
    decode_models_record,
    decode_request,
    decode_result,
    decode_review,
    decode_teaching_record,
    decode_text_lease,
    decode_usage,
    decode_workers_record,
    encode_api_key,
    encode_dead_letter,
    encode_idempotent_call,
    encode_label,
    encode_machine_label,
    encode_models_record,
    encode_request,
    encode_result,
    encode_review,
    encode_teaching_record,
    encode_text_lease,
    encode_usage,
    encode_workers_record,
)
from headrace_schemas.asyncapi import GENERATED, RECORDS, file_stem

EXAMPLES = Path(headrace_schemas.__file__).parent / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".json", ".msgpack", ".txt"})
RECORD_FILES = [path for path in FILES if path.suffix != ".txt" and not path.name.startswith("on-topic.")]
CONTENT_TYPES = {".json": JSON, ".msgpack": MSGPACK, ".txt": TEXT}
GENERIC: dict[str, Callable[[bytes], Any]] = {JSON: msgspec.json.decode, MSGPACK: msgspec.msgpack.decode}
FUTURE = "x_future"
MODELS = (decode_models_record, encode_models_record)
WORKERS = (decode_workers_record, encode_workers_record)
MACHINE_LABELS = (decode_machine_label, encode_machine_label)
TEACHING = (decode_teaching_record, encode_teaching_record)
CODECS: dict[str, tuple[Callable[..., Any], Callable[..., bytes]]] = {
    "classify-request": (decode_request, encode_request),
    "classify-result": (decode_result, encode_result),
    "labelled-text": (decode_label, encode_label),
    "model-version": MODELS,
    "model-alias": MODELS,
    "verdict": MODELS,
    "training": MODELS,
    "training-order": MODELS,
    "results-claim": WORKERS,
    "max-batch": WORKERS,
    "attempt": WORKERS,
    "certificate": MODELS,
    "threshold-raise": MODELS,
    "label-rule": MODELS,
    "machine-label": MACHINE_LABELS,
    "barred-text": MACHINE_LABELS,
    "spending": TEACHING,
    "labeller-state": TEACHING,
    "api-key": (decode_api_key, encode_api_key),
    "usage": (decode_usage, encode_usage),
    "idempotent-call": (decode_idempotent_call, encode_idempotent_call),
    "text-lease": (decode_text_lease, encode_text_lease),
    "review": (decode_review, encode_review),
    "dead-letter": (decode_dead_letter, encode_dead_letter),
}


def record_and_case(path: Path) -> tuple[str, str]:
    record, case, _ = path.name.split(".")
    return record, case


def by_name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", RECORD_FILES, ids=by_name)
def test_an_example_decodes_and_loses_nothing_when_encoded_again(path: Path) -> None:
    name, _ = record_and_case(path)
    decode, encode = CODECS[name]
    content_type = CONTENT_TYPES[path.suffix]
    record = decode(path.read_bytes(), content_type)
    assert file_stem(type(record)) == name
    written = GENERIC[content_type](path.read_bytes())
    written.pop(FUTURE, None)
    assert GENERIC[content_type](encode(record, content_type)) == written


@pytest.mark.parametrize("kind", ["results-claim", "attempt"])
def test_a_claim_or_attempt_that_an_older_version_left_on_classify_models_decodes(kind: str) -> None:
    value = (EXAMPLES / f"{kind}.full.json").read_bytes()
    assert decode_models_record(value) == decode_workers_record(value)


@pytest.mark.parametrize("path", [path for path in RECORD_FILES if path.suffix == ".json"], ids=by_name)
def test_the_same_case_in_both_formats_is_the_same_record(path: Path) -> None:
    decode, _ = CODECS[record_and_case(path)[0]]
    assert decode(path.read_bytes(), JSON) == decode(path.with_suffix(".msgpack").read_bytes(), MSGPACK)


def test_the_bare_text_is_the_text_of_the_full_request() -> None:
    full = decode_request((EXAMPLES / "classify-request.full.json").read_bytes())
    value = (EXAMPLES / "classify-request.bare.txt").read_bytes()
    assert decode_request(value, TEXT) == ClassifyRequest(text=full.text)
    assert encode_request(ClassifyRequest(text=full.text), TEXT) == value


def test_a_dead_letter_lies_on_its_topic_as_the_example_shows() -> None:
    written = json.loads((EXAMPLES / "on-topic.dead-letter.json").read_text(encoding="utf-8"))
    letter = decode_dead_letter((EXAMPLES / "dead-letter.full.json").read_bytes())
    headers = [(name, None if value is None else value.encode()) for name, value in written["headers"]]
    assert dead_letter_from_record(written["key"].encode(), written["value"].encode(), headers) == letter
    assert list(dead_letter_headers(letter)) == headers


@pytest.mark.parametrize("record", RECORDS, ids=file_stem)
def test_the_examples_of_a_record_use_every_field_and_a_future_one(record: type[msgspec.Struct]) -> None:
    cases = {
        record_and_case(path)[1]: json.loads(path.read_text(encoding="utf-8"))
        for path in RECORD_FILES
        if path.suffix == ".json" and record_and_case(path)[0] == file_stem(record)
    }
    fields = msgspec.structs.fields(record)
    tag = {"kind"} if record.__struct_config__.tag_field else set()
    assert set().union(*cases.values()) == {field.encode_name for field in fields} | tag | {FUTURE}
    assert set(cases["required"]) == {field.encode_name for field in fields if field.required} | tag
    assert FUTURE in cases["unknown-fields"]


@pytest.mark.parametrize("path", [path for path in RECORD_FILES if path.suffix == ".json"], ids=by_name)
def test_an_example_fits_the_schema_of_its_record_and_of_no_damaged_one(path: Path) -> None:
    name, _ = record_and_case(path)
    schema = json.loads((GENERATED / f"{name}.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    written = json.loads(path.read_text(encoding="utf-8"))
    validator.validate(written)
    first_field = next(name for name in written if name != "kind")
    assert not validator.is_valid({**written, first_field: {}})
    assert not validator.is_valid({name: value for name, value in written.items() if name != first_field})


def test_no_example_has_changed() -> None:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES}
    lines = (EXAMPLES / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert digests == listed
