"""labels.toml: what is read, and what is refused in words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labeller.teachers.labels_file import (
    MOST_BYTES,
    MOST_LABELS,
    Description,
    Labels,
    LabelsFileError,
    read_labels,
)

GOOD = """
task = "What a customer wants."

[labels.card_arrival]
description = "When a card comes."
examples = ["where is my card", "card not here yet"]

[labels." lost or stolen "]
"""


def test_names_descriptions_and_examples_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text(GOOD)
    assert read_labels(file) == Labels(
        ("card_arrival", "lost or stolen"),
        (Description("When a card comes.", ("where is my card", "card not here yet")), Description()),
        "What a customer wants.",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "labels"),
        ("labels = 3", "labels"),
        ("[labels.a]\n[labels.a]", "no file of labels"),
        ("[labels.a]", "2 to"),
        ("[labels]", "2 to"),
        ("[labels.a]\n[labels.b]\ndescriptoin = 'x'", "descriptoin"),
        ("[labels.a]\n[labels.b]\nexamples = 'x'", "examples"),
        ("[labels.a]\n[labels.b]\n[other]", "other"),
        ("[labels.a]\n[labels.' a ']", "one label"),
        ("[labels.a]\n[labels.'  ']", "no name"),
        ('[labels.a]\n[labels."x\\u0007y"]', "printed"),
        ("x = " + "[" * 5000 + "]" * 5000, ""),
        ("x = " + "9" * 10_000, "no file of labels"),
        (f"[labels.a]\n[labels.{'b' * 300}]", "at most 249"),
        (f"[labels.a]\n[labels.b]\ndescription = '{'x' * 2001}'", "2,000"),
        (f"[labels.a]\n[labels.b]\nexamples = {['x'] * 21}", "20 examples"),
        (f"task = '{'x' * 2001}'\n[labels.a]\n[labels.b]", "task"),
        ("".join(f"[labels.l{n}]\n" for n in range(MOST_LABELS + 1)), "2,001"),
        ("".join(f"[labels.l{n}]\ndescription = '{'x' * 1900}'\n" for n in range(110)), "every call"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_name_and_the_reason(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "labels.toml"
    file.write_text(text)
    with pytest.raises(LabelsFileError) as refused:
        read_labels(file)
    assert str(file) in str(refused.value)
    assert told in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_file_of_absurd_size_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    with file.open("wb") as opened:
        opened.truncate(MOST_BYTES * 4096)
    with pytest.raises(LabelsFileError, match="larger than"):
        read_labels(file)
    with pytest.raises(LabelsFileError, match="can't be read"):
        read_labels(tmp_path / "nowhere.toml")
    with pytest.raises(LabelsFileError, match="can't be read"):
        read_labels(tmp_path)


@given(st.binary(max_size=300))
def test_any_bytes_are_labels_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.toml"
        file.write_bytes(data)
        with pytest.raises(LabelsFileError):
            read_labels(file)
