"""`headrace bench-backend` on a small artifact, through the command line's own entry."""

import sys
from pathlib import Path

import msgspec
import pytest
import torch

from headrace import cli
from headrace.commands.local import LARGEST_BATCH, read_texts
from headrace.core.errors import UserError
from headrace.model.artifact import save
from headrace.model.timing import Report
from tests.support.networks import random_artifact


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace", "bench-backend", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The options that name a model and texts."""
    save(random_artifact(1), str(tmp_path / "model"))
    (tmp_path / "texts").write_text("the good film\n\nnot bad\n", "utf-8")
    return ["--model", str(tmp_path / "model"), "--texts", str(tmp_path / "texts"), "--rounds", "1"]


def test_the_figures_of_every_size_and_what_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert run(monkeypatch, *given, "--json", "--threads", "2") == 0
    report = msgspec.json.decode(capsys.readouterr().out, type=Report)
    assert [timing.size for timing in report.timings] == [1 << power for power in range(report.texts.bit_length())]
    assert report.texts <= LARGEST_BATCH
    assert all(timing.seconds > 0 for timing in report.timings)
    assert report.max_batch in [timing.size for timing in report.timings]
    assert report.mean_bytes == 10
    assert (report.backend, report.threads) == ("cpu", 2)


def test_a_table_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert run(monkeypatch, *given) == 0
    shown = capsys.readouterr().out
    assert "backend cpu, version " in shown
    assert "T(n) = " in shown
    assert "worker.max_batch = " in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert run(monkeypatch, *given, "--backend", "cuda") == 1
    assert "headrace: backend cuda needs " in capsys.readouterr().err


def test_an_artifact_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert run(monkeypatch, *given, "--model", "/nowhere/model") == 1
    assert "/nowhere/model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b"good\n\x81\n", "line 2: "),
        ("a.jsonl", b'{"text": "good"}\n{"words": 1}\n', "line 2: "),
        ("a.txt", b"\n \n", "has no texts"),
    ],
)
def test_a_file_without_texts_is_refused(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_texts(tmp_path / name)


def test_texts_of_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "mañana", "label": "x"}\n', "utf-8")
    assert read_texts(tmp_path / "a.jsonl") == ["mañana".encode()]
