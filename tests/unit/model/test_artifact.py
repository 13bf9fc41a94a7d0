"""Artifacts: equal bytes for equal content, and no damaged, altered or hostile file is ever used."""

import dataclasses
import hashlib
import json
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import artifact
from headrace.model.artifact import About, Artifact, Canary, assemble, library_versions, load, save
from headrace.model.errors import ArtifactError
from headrace.model.integers import QuantizedNetwork
from headrace.model.quantizing import Bits, quantize
from headrace.model.store import StoreError
from headrace_schemas.records import Lineage, OffsetRange
from tests.support.networks import random_network

NETWORK = quantize(random_network(6))
ABOUT = About(
    parent="20260101T000000Z-0123456789ab",
    lineage=Lineage(source="classify.labels", digest="d", rows=3, offsets=(OffsetRange(0, 0, 3),)),
    metrics={"accuracy": 0.1 + 0.2, "macro-F1": 0.25},
    libraries={"python": "3.11.0"},
    canaries=(Canary("好 film", "label 1"),),
)
DATA = artifact.encode(NETWORK, ABOUT)


def assert_equal(one: QuantizedNetwork, other: QuantizedNetwork) -> None:
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name == "filters":
            assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))
        else:
            assert np.array_equal(first, second), field.name
            assert np.asarray(first).dtype == np.asarray(second).dtype, field.name


@pytest.mark.parametrize("place", ["{tmp}/model.safetensors", "file://{tmp}/new/folder/model", "memory://{tmp}/model"])
def test_what_is_saved_is_loaded(place: str, tmp_path: Path) -> None:
    uri = place.format(tmp=tmp_path)
    artifact = assemble(NETWORK, ABOUT)
    save(artifact, uri)
    loaded = load(uri, sha256=artifact.sha256, size=artifact.size)
    assert_equal(loaded.network, NETWORK)
    assert loaded.about == ABOUT
    assert (loaded.sha256, loaded.size, loaded.version) == (artifact.sha256, artifact.size, artifact.version)


def test_four_bits_are_stored_two_a_byte_and_read_back() -> None:
    network = quantize(random_network(6, labels=3, dimensions=9, extra_words=500), Bits(4, 4))
    data = artifact.encode(network, ABOUT)
    decoded, _ = artifact.decode(data, "model")
    assert_equal(decoded, network)
    assert_equal(decoded, artifact.decode(artifact.encode(decoded, ABOUT), "model")[0])
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    rows = len(network.words)
    assert (header["words"]["dtype"], header["words"]["shape"]) == ("U8", [rows, 5])
    assert header["wide_words"]["shape"] == [rows, 2]
    assert header["filters.1"]["shape"] == [5, 3, 5]


def test_saving_leaves_the_artifact_alone_in_its_folder(tmp_path: Path) -> None:
    artifact = assemble(NETWORK, ABOUT)
    save(artifact, str(tmp_path / "model"))
    save(artifact, str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert hashlib.sha256((tmp_path / "model").read_bytes()).hexdigest() == artifact.sha256


def test_a_save_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "mv", fail)
        with pytest.raises(
            StoreError,
            match=r"memory://failing/model could not be written: its driver failed \(OSError\).*\(store-failed\)",
        ):
            save(assemble(NETWORK, ABOUT), "memory://failing/model")
    assert files.find("failing") == []


def test_the_same_content_gives_the_same_bytes() -> None:
    other = About(**{field: getattr(ABOUT, field) for field in reversed(ABOUT.__struct_fields__)})
    turned = msgspec.structs.replace(other, metrics=dict(reversed(ABOUT.metrics.items())))
    assert artifact.encode(quantize(random_network(6)), turned) == DATA


def test_a_version_is_named_after_its_time_and_its_content() -> None:
    plain = assemble(NETWORK, ABOUT)
    assert plain.version == plain.sha256[:12] == hashlib.sha256(DATA).hexdigest()[:12]
    timed = assemble(NETWORK, msgspec.structs.replace(ABOUT, created_at_ms=1_700_000_000_123))
    assert timed.version == f"20231114T221320Z-{timed.sha256[:12]}"
    assert timed.sha256 != plain.sha256


def test_a_missing_artifact_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere: there is no such artifact"):
        load(str(tmp_path / "nowhere"))


def test_a_file_that_its_record_does_not_describe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(DATA)
    with pytest.raises(ArtifactError, match="its record says 5"):
        load(str(path), size=5)
    with pytest.raises(ArtifactError, match=r"SHA-256 .* record says abc"):
        load(str(path), sha256="abc")


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(DATA) - 1))
def test_a_truncated_file_is_refused_wherever_it_ends(size: int) -> None:
    with pytest.raises(ArtifactError, match="model"):
        artifact.decode(DATA[:size], "model")


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_a_file_with_one_bit_turned_is_refused(at: int, bit: int) -> None:
    altered = bytearray(DATA)
    altered[at] ^= 1 << bit
    with suppress(ArtifactError):
        # The last digit of a number can be another spelling of the same float.
        assert artifact.encode(*artifact.decode(bytes(altered), "model")) == DATA
        return
    with pytest.raises(ArtifactError, match="model"):
        artifact.decode(bytes(altered), "model")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="model"):
        artifact.decode(data, "model")


def test_an_altered_label_is_refused_without_any_record() -> None:
    with pytest.raises(ArtifactError, match="checksum"):
        artifact.decode(DATA.replace(b"label 2", b"label 9"), "model")


def test_an_artifact_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "FORMAT", "headrace/99")
        foreign = artifact.encode(NETWORK, ABOUT)
    with pytest.raises(ArtifactError, match="has the format 'headrace/99'"):
        artifact.decode(foreign, "model")


def test_an_artifact_of_a_hashing_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(artifact.RULES, "other", 2)
        foreign = artifact.encode(dataclasses.replace(NETWORK, hashing="other"), ABOUT)
    with pytest.raises(ArtifactError, match="made with another hash"):
        artifact.decode(foreign, "model")


def test_an_artifact_made_with_other_character_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifact.characters, "digest", lambda rule: "f" * 64)
        foreign = artifact.encode(NETWORK, ABOUT)
    with pytest.raises(ArtifactError, match="other character tables"):
        artifact.decode(foreign, "model")


def changed(name: str, index: tuple[int, ...], value: float) -> dict[str, object]:
    array = getattr(NETWORK, name).copy()
    array[index] = value
    return {name: array}


# Files whose checksum fits and whose content does not: made by someone who knows the format.
HOSTILE: list[tuple[dict[str, object], str]] = [
    ({"labels": ("a", "a", "b")}, "labels"),
    ({"labels": ()}, "labels"),
    ({"labels": ("a", "b")}, r"head is int8\[3, 15\], expected int8\[2, 15\]"),
    ({"widths": (2, 3)}, "arrays"),
    ({"widths": (2, 3, 0)}, "widths"),
    ({"widths": (2, 3, 1000)}, "widths"),
    ({"widths": (3, 2, 4)}, r"filters.0 is"),
    ({"max_tokens": 0}, "max_tokens 0"),
    ({"max_tokens": 10**9}, "max_tokens 1000000000"),
    ({"unit": -1.0}, "unit"),
    ({"words": NETWORK.words[:-1]}, "words is"),
    ({"words": NETWORK.words.astype(np.int16)}, "words is int16"),
    ({"words": NETWORK.words[0]}, "words is"),
    ({"word_keys": NETWORK.word_keys.reshape(1, -1)}, "word_keys is"),
    (changed("words", (3, 0), -128), "-128"),
    (changed("words", (0, 0), 1), "row 0 of words"),
    ({"word_unit": 0.0}, "unit 0.0"),
    (changed("word_steps", (3,), 0), "word_steps holds a step of 0"),
    (changed("filter_scales", (3,), np.nan), "filter_scales"),
    (changed("table_scales", (3,), 0.0), "table_scales"),
    (changed("word_keys", (1,), int(NETWORK.word_keys[0])), "word_keys holds a key twice"),
    ({"wide_words": NETWORK.wide_words.view(np.uint8)}, r"wide_words: uint8\[18, 3\] does not hold 3 columns"),
    ({"wide_words": np.full((18, 2), 8, np.uint8)}, "wide_words: it holds a half byte"),
    ({"wide_words": np.full((18, 2), 16, np.uint8)}, "wide_words: it holds a half byte"),
    ({"filters": tuple(f[..., :0] for f in NETWORK.filters), "words": NETWORK.words[:, :0]}, "0 dimensions"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_hostile_file_is_refused(change: dict[str, object], message: str) -> None:
    data = artifact.encode(replace(NETWORK, **change), ABOUT)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=message):
        artifact.decode(data, "model")


def test_tables_beyond_the_memory_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_TABLE_BYTES", 100)
    with pytest.raises(ArtifactError, match="tables would take"):
        artifact.decode(DATA, "model")


def test_the_file_is_plain_safetensors_with_a_readable_description() -> None:
    length = int.from_bytes(DATA[:8], "little")
    header = json.loads(DATA[8 : 8 + length])
    description = json.loads(header["__metadata__"]["headrace"])
    assert description["labels"] == list(NETWORK.labels)
    assert description["about"]["canaries"] == [{"text": "好 film", "label": "label 1"}]
    assert header["words"]["dtype"] == "I8"


def test_library_versions_name_what_touches_the_numbers() -> None:
    assert {"python", "numpy", "numba", "safetensors", "headrace"} <= set(library_versions())


def test_an_artifact_that_would_be_written_otherwise_is_not_saved(tmp_path: Path) -> None:
    artifact = assemble(NETWORK, ABOUT)
    foreign = Artifact(artifact.network, artifact.about, "0" * 64, artifact.size)
    with pytest.raises(ArtifactError, match="copy its file"):
        save(foreign, str(tmp_path / "model"))


def test_a_metric_given_as_a_whole_number_reads_back(tmp_path):
    artifact = assemble(quantize(random_network(1)), About(metrics={"accuracy": 1}))
    path = str(tmp_path / "whole.safetensors")
    save(artifact, path)
    assert load(path).about.metrics == {"accuracy": 1.0}
