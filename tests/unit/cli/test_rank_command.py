"""A rank takes its job from the process that started it, and from no file that somebody may have laid ready."""

import msgspec
from typer.testing import CliRunner

from headrace.cli import app
from headrace.learning.distributed.job import FileSource, Job
from headrace.learning.fit.hyperparameters import Recipe

RUNNER = CliRunner()


def test_a_planted_job_file_is_not_taken(tmp_path):
    out = tmp_path / "out"
    source = FileSource(data=str(tmp_path / "data.jsonl"))
    job = Job(id="train", source=source, recipe=Recipe(), checkpoints=str(out), out=str(out))
    planted = tmp_path / "train.json"
    planted.write_bytes(msgspec.json.encode(job))
    ended = RUNNER.invoke(app, ["rank", str(planted)], input=b"")
    assert ended.exit_code == 2
    assert "unexpected extra argument" in ended.output
    assert not out.exists()


def test_a_standard_input_without_an_assignment_is_refused_in_words():
    ended = RUNNER.invoke(app, ["rank"], input=b"{}")
    assert ended.exit_code == 2
    assert "holds no assignment of a rank" in ended.output
