"""`--delimiter` and `--encoding`, and the settings of the holdout, of whatever reads a file of texts.

Nobody could find out the delimiter and the encoding of these files, so each has to be passed on to whoever reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from headrace.commands.common import Invocation
from headrace.commands.demo import demo
from headrace.commands.local import bench_backend, evaluate, predict
from headrace.commands.train import train
from headrace.commands.trainer import rank
from headrace.files.table import Reading
from headrace.learning.data.split import UNKEYED
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.comparison import NO_ROWS, Holdout, read_holdout
from headrace.learning.distributed.job import FileSource, Job
from headrace.learning.distributed.rank import read_parts
from headrace.learning.distributed.rendezvous import Assignment, OnThisMachine
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model import store
from headrace.model.artifact import save
from tests.support.networks import random_artifact
from tests.support.places import ANYWHERE

app = typer.Typer()
for command in (train, evaluate, predict, bench_backend, demo, rank):
    app.command()(command)

NAMED = ("--delimiter", "~", "--encoding", "koi8-r")
READING = Reading("~", "koi8-r")
ROWS = [
    (f"{word} номер {number}", label) for number in range(40) for word, label in (("день", "свет"), ("ночь", "тьма"))
]
TEXTS = sorted(text for text, _ in ROWS)


class StoppedError(Exception):
    """What a test looks at was reached."""


def written(file: Path, rows: Sequence[tuple[str, str]] = ROWS) -> Path:
    file.write_bytes("".join(f"{text}~{label}\n" for text, label in [("text", "label"), *rows]).encode("koi8-r"))
    return file


def run(*arguments: object, given: bytes = b"", **invocation: Any) -> str:
    started = Invocation(environ={}, **invocation)
    named = [str(argument) for argument in arguments]
    done = CliRunner().invoke(app, named, obj=started, input=given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def stopping(monkeypatch: pytest.MonkeyPatch, place: str, name: str) -> list[Any]:
    """Replace a function by one that stops the command; returns the list of what it was called with."""
    called: list[Any] = []

    def stop(*arguments: object, **named: object) -> None:
        called.append((arguments, named))
        raise StoppedError

    monkeypatch.setattr(import_module(place), name, stop)
    return called


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(random_artifact(1), str(tmp_path / "model.safetensors"))
    return tmp_path / "model.safetensors"


def test_train_reads_its_data_and_the_files_of_both_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"data": ROWS[:40], "valid": ROWS[40:60], "test": ROWS[60:]}
    files = {name: written(tmp_path / f"{name}.csv", rows) for name, rows in shares.items()}
    called = stopping(monkeypatch, "headrace.commands.train", "_run")
    given = ("--valid", files["valid"], "--test", files["test"])
    with pytest.raises(StoppedError):
        run("train", files["data"], "--out", tmp_path / "m", *given, *NAMED)
    source = called[0][0][1].source
    assert source.reading == READING
    parts = read_parts(source, None, Alone(), UNKEYED, Holdout(NO_ROWS, frozenset(), ""))
    assert parts.labels == ("свет", "тьма")


def test_evaluate_predict_and_bench_backend_read_their_file(tmp_path: Path, model: Path) -> None:
    file = written(tmp_path / "rows.csv")
    predicted = [json.loads(line)["text"] for line in run("predict", model, file, *NAMED).splitlines()]
    assert sorted(predicted) == TEXTS
    wrong = [json.loads(line) for line in run("evaluate", model, file, "--errors", "--json", *NAMED).splitlines()]
    assert sorted((one["text"], one["label"]) for one in wrong) == sorted(ROWS)
    report = json.loads(run("bench-backend", "--model", model, "--texts", file, "--rounds", 1, "--json", *NAMED))
    assert report["mean_bytes"] == pytest.approx(sum(len(text.encode()) for text in TEXTS) / len(TEXTS), rel=0.1)


def test_demo_reads_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stopping(monkeypatch, "headrace.process.lifecycle", "run")
    with pytest.raises(StoppedError):
        run("demo", "--data", written(tmp_path / "rows.csv"), *NAMED)
    until_stopped = called[0][0][0]
    (tell,) = until_stopped.args
    (order,) = tell.args
    assert sorted(order.texts.rows.texts) == TEXTS


@pytest.mark.parametrize("place", ["file", "store"])
def test_a_holdout_is_read_as_its_settings_say(tmp_path: Path, place: str) -> None:
    named = str(written(tmp_path / "rows.csv"))
    if place == "store":
        store.write(ANYWHERE.locate("memory://delimiters/rows.csv"), Path(named).read_bytes(), "t")
        named = "memory://delimiters/rows.csv"
    found = read_holdout(named, None, Alone(), hashing=UNKEYED.hashing, max_text_bytes=1024, reading=READING)
    assert sorted(found.rows.texts) == TEXTS


def test_a_rank_is_told_how_the_holdout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stopping(monkeypatch, "headrace.learning.distributed.rank", "run")
    job = Job(id="a", source=FileSource(data="x"), recipe=Recipe(), checkpoints=str(tmp_path), out=str(tmp_path))
    told = Assignment(job=job, rank=0, world=1, meeting=OnThisMachine(str(tmp_path / "meeting")))
    sets = (f"trainer.store={tmp_path}", "gate.holdout=rows.csv", "gate.holdout_delimiter=~")
    with pytest.raises(AssertionError):  # a rank ends by a code of its own
        run("rank", given=msgspec.json.encode(told), sets=(*sets, "gate.holdout_encoding=koi8-r"))
    assert called[0][1]["holdout"] == "rows.csv"
    assert called[0][1]["holdout_reading"] == READING
