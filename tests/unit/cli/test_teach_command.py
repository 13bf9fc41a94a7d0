"""`headrace teach` by its command line: an encoder, a program, and a real server that stands for a language model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from headrace.commands.common import Invocation
from headrace.commands.teach import ChoiceError, teach
from headrace.commands.train import train
from headrace.demo.chat_server import ChatServer, chat_server, naive_bayes
from headrace.labeller.teachers.interface import TeacherError, TeacherNameError
from headrace.learning.data.taught import read_taught
from headrace.model.artifact import load
from headrace.model.places import as_told
from tests.support.tiny_encoder import write_tiny_encoder

app = typer.Typer()
app.command()(teach)
training = typer.Typer()
training.command()(train)

CLASSIFY = naive_bayes(
    ("my card is lost", "a new card", "give my money back", "a refund of the money"),
    ("card", "card", "refund", "refund"),
)
TEXTS = ("where is the card", "the money please", "card of jane@mail.example", "the money please")
LABELS = '[labels.card]\ndescription = "of cards"\n[labels.refund]\n'


def invoke(*arguments: object, environ: dict[str, str] | None = None) -> Result:
    started = Invocation(environ=environ or {})
    return CliRunner().invoke(app, [str(argument) for argument in arguments], obj=started, catch_exceptions=False)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    return file


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.toml"
    file.write_text(LABELS)
    return file


def rows(file: Path) -> Path:
    about = {"card": "my card is lost", "refund": "give my money back"}
    lines = [{"text": f"{text} {number}", "label": label} for label, text in about.items() for number in range(30)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_an_endpoint_labels_a_file_and_goes_on_with_it(tmp_path: Path, texts: Path, labels: Path) -> None:
    server, out = ChatServer(CLASSIFY, key="sesame"), tmp_path / "out.jsonl"
    environ = {
        "HEADRACE_TEACHER__API_KEY": "sesame",
        "HEADRACE_TEACHER__PRICE_INPUT": "2",
        "HEADRACE_TEACHER__PRICE_OUTPUT": "8",
    }
    with chat_server(server) as url:
        given = (texts, "--teacher", f"endpoint:{url}", "--labels", labels, "--model", "m", "--may-leave", "text")
        first = invoke(*given, "--out", out, "--limit", 2, environ=environ)
        assert "labelled 2 texts" in first.stdout
        assert "ended early: 2 texts" in first.stdout
        second = invoke(*given, "--out", out, "--budget", 1, environ=environ)
        assert "labelled 1 texts" in second.stdout
        assert "spent 0.0" in second.stdout
    assert server.asked == {"where is the card": 1, "the money please": 1, "card of [email]": 1}
    taught = read_taught(out)
    assert taught.texts == ("where is the card", "the money please", "card of jane@mail.example")
    assert taught.rows().labels == ("card", "refund", "card")
    assert "sesame" not in out.read_text() + first.output + second.output


def test_nothing_is_sent_before_the_operator_has_named_what_may_leave(
    tmp_path: Path, texts: Path, labels: Path
) -> None:
    server = ChatServer(CLASSIFY)
    with chat_server(server) as url:
        given = (texts, "--teacher", f"endpoint:{url}", "--labels", labels, "--model", "m", "--out", tmp_path / "out")
        for more in ((), ("--may-leave", "label"), ("--may-leave", "classify.requests:text")):
            with pytest.raises(TeacherError, match="Nothing was sent"):
                invoke(*given, *more)
    assert not server.calls
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_exactly_what_would_go_and_sends_nothing(tmp_path: Path, texts: Path, labels: Path) -> None:
    server, prices = ChatServer(CLASSIFY), {"HEADRACE_TEACHER__PRICE_INPUT": "2", "HEADRACE_TEACHER__PRICE_OUTPUT": "8"}
    with chat_server(server) as url:
        given = (texts, "--teacher", f"endpoint:{url}", "--labels", labels, "--model", "m")
        shown = invoke(*given, "--dry-run", environ=prices)
        assert not server.calls
        invoke(*given, "--may-leave", "text", "--out", tmp_path / "out", environ=prices)
    bodies = [json.loads(line) for line in shown.stdout.splitlines()]
    went = [call.body for call in server.calls]
    assert all(body in bodies for body in went)
    assert len(bodies) == len(TEXTS)
    assert "jane@mail" not in shown.stdout
    assert "would cost at most about 0." in shown.stderr


def test_a_program_labels_a_file(tmp_path: Path, texts: Path, labels: Path) -> None:
    program = tmp_path / "label.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    one = json.loads(line)\n"
        "    label = 'card' if 'card' in one['text'] else 'refund'\n"
        "    print(json.dumps({'n': one['n'], 'label': label}), flush=True)\n"
    )
    out = tmp_path / "out.jsonl"
    invoke(texts, "--teacher", f"program:{sys.executable} {program}", "--labels", labels, "--out", out)
    assert read_taught(out).rows().labels == ("card", "refund", "card")


def test_an_encoder_learns_from_rows_is_kept_and_labels_again_without_them(tmp_path: Path, texts: Path) -> None:
    encoder, saved = write_tiny_encoder(tmp_path / "tiny"), tmp_path / "teacher.safetensors"
    data = rows(tmp_path / "rows.jsonl")
    tuned = {"HEADRACE_TEACHER__TUNE": "never"}
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = invoke(
        texts, "--teacher", f"encoder:{encoder}", "--data", data, "--out", one, "--save", saved, environ=tuned
    )
    assert "right on" in first.stderr
    invoke(texts, "--teacher", f"encoder:{saved}", "--out", two)
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(TeacherError, match="learns from rows"):
        invoke(texts, "--teacher", f"encoder:{encoder}", "--out", tmp_path / "three")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Name a file of texts"),
        (("TEXTS", "--requests", "--out", "x"), "not both"),
        (("TEXTS",), "Name where the labels go"),
        (("TEXTS", "--out", "x", "--publish"), "not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(texts: Path, arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(ChoiceError, match=told):
        invoke(*(texts if one == "TEXTS" else one for one in arguments))


def test_a_budget_needs_prices_and_a_teacher_its_labels(tmp_path: Path, texts: Path, labels: Path) -> None:
    endpoint = (texts, "--teacher", "endpoint:http://127.0.0.1:9/v1", "--may-leave", "text", "--out", tmp_path / "out")
    with pytest.raises(ChoiceError, match="price_input"):
        invoke(*endpoint, "--labels", labels, "--model", "m", "--budget", 3)
    with pytest.raises(TeacherError, match=r"labels\.toml"):
        invoke(*endpoint, "--model", "m")
    with pytest.raises(TeacherError, match=r"teacher\.model"):
        invoke(*endpoint, "--labels", labels)
    with pytest.raises(TeacherNameError):
        invoke(texts, "--teacher", "gpt", "--out", tmp_path / "out")


def run_training(*arguments: object) -> Result:
    started = Invocation(environ={"HEADRACE_TEACHER__TUNE": "never"})
    given = [*map(str, arguments), "--budget", "0", "--epochs", "1"]
    return CliRunner().invoke(training, given, obj=started, catch_exceptions=False)


def unlabelled(file: Path) -> Path:
    lines = [f"{text} {number}" for text in ("the card was stolen", "a refund of the money") for number in range(40)]
    file.write_text("\n".join(lines))
    return file


def test_a_training_lets_an_encoder_label_texts_first(tmp_path: Path) -> None:
    encoder, data = write_tiny_encoder(tmp_path / "tiny"), rows(tmp_path / "rows.jsonl")
    texts, out = unlabelled(tmp_path / "texts.txt"), tmp_path / "model.safetensors"
    done = run_training(data, "--unlabelled", texts, "--teacher", f"encoder:{encoder}", "--out", out)
    assert "of a teacher" in done.stdout
    assert "machine rows that count" in done.stdout
    assert "UNPROVEN" not in done.stdout
    about = load(as_told(str(out)))
    assert about.labels == ("card", "refund")


def test_a_training_begins_from_no_labels_at_all_and_keeps_what_was_paid(tmp_path: Path, labels: Path) -> None:
    server, texts, kept = ChatServer(CLASSIFY), unlabelled(tmp_path / "texts.txt"), tmp_path / "kept.jsonl"
    with chat_server(server) as url:
        given = ("--unlabelled", texts, "--labels", labels, "--teacher", f"endpoint:{url}", "--model", "m")
        with pytest.raises(TeacherError, match="Nothing was sent"):
            run_training(*given, "--out", tmp_path / "model")
        assert not server.calls
        done = run_training(*given, "--may-leave", "text", "--taught", kept, "--out", tmp_path / "model")
    assert "UNPROVEN" in done.stdout
    assert len(read_taught(kept)) == 80
    assert len(server.calls) == 80
    again = run_training("--taught", kept, "--out", tmp_path / "again")
    assert "UNPROVEN" in again.stdout
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_a_teacher_is_not_asked_about_texts_that_can_not_train(tmp_path: Path, labels: Path) -> None:
    server, data, texts = ChatServer(CLASSIFY), rows(tmp_path / "rows.jsonl"), tmp_path / "texts.txt"
    unlabelled(texts)
    texts.write_text(texts.read_text() + "\nMy card is lost 3\n")
    with chat_server(server) as url:
        given = ("--unlabelled", texts, "--labels", labels, "--teacher", f"endpoint:{url}", "--model", "m")
        run_training(data, *given, "--may-leave", "text", "--out", tmp_path / "model")
    assert 40 < len(server.calls) < 80
    assert "My card is lost 3" not in server.asked


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Name a file of labelled texts"),
        (("--taught", "x", "--test", "y"), "go with a file"),
        (("DATA", "--teacher", "encoder"), "name the file"),
        (("DATA", "--unlabelled", "x", "--nnodes", "2"), "headrace teach"),
    ],
)
def test_a_training_of_what_does_not_go_together_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    data = rows(tmp_path / "rows.jsonl")
    with pytest.raises(ChoiceError, match=told):
        run_training(*(data if one == "DATA" else one for one in arguments), "--out", tmp_path / "model")
