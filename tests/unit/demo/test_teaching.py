import io
import random
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from headrace.config import load_settings
from headrace.core.spending import Amount, Budget
from headrace.demo.chat_server import Fault
from headrace.demo.labelling import (
    Figures,
    Said,
    fault_of,
    figures_of,
    labels_file,
    said,
    teaching_settings,
)
from headrace.demo.setup import as_sets, child_environment
from headrace.demo.stream import Ledger, Snapshot
from headrace.demo.teaching import Stream
from headrace.demo.teaching_screen import Lesson, Shown, Taught, closing, figures, gold, showed, spent, view
from headrace.demo.texts import Texts, divide
from headrace.files import DatasetError
from headrace.kafka.brokers import embedded_settings
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.teachers.labels_file import read_labels
from headrace.learning.data.files import Rows

ROWS = Rows(tuple(f"text number {number}" for number in range(300)), ("a", "b", "c") * 100)
TEXTS = Texts(name="rows", rows=ROWS, held_out=ROWS.take(list(range(30))), too_long=0)


def test_people_get_few_of_each_class_and_no_text_is_in_two_parts() -> None:
    parts = divide(TEXTS, a_class=10, most=150, most_held_out=20, apart=40, random=random.Random(0))
    assert sorted(parts.people.labels) == ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    assert (len(parts.unlabelled), len(parts.held_out), len(parts.apart)) == (150, 20, 40)
    texts = parts.people.texts + parts.unlabelled.texts + TEXTS.held_out.texts + parts.apart.texts
    assert len(set(texts)) == len(texts)


def test_every_text_keeps_its_own_label() -> None:
    parts = divide(TEXTS, a_class=10, most=150, most_held_out=20, apart=40, random=random.Random(0))
    true = dict(zip(ROWS.texts, ROWS.labels, strict=True))
    for rows in (parts.people, parts.unlabelled, parts.held_out, parts.apart):
        assert [true[text] for text in rows.texts] == list(rows.labels)


def test_a_set_with_no_text_left_to_label_is_refused_in_words() -> None:
    with pytest.raises(DatasetError, match="none is left without a label, after 30 held out and 100 of each class"):
        divide(TEXTS, a_class=100, most=150, most_held_out=20, apart=0, random=random.Random(0))


def test_the_stream_repeats_what_was_there_until_new_texts_are_let_in() -> None:
    stream = Stream(ROWS, random.Random(0))
    stream.let_in(3)
    texts = iter(stream)
    assert list(islice(texts, 3)) == list(ROWS.texts[:3])
    assert set(islice(texts, 50)) == set(ROWS.texts[:3])
    stream.let_in(2)
    assert list(islice(texts, 2)) == list(ROWS.texts[3:5])
    stream.stop()
    assert list(texts) == []


def test_the_stream_ends_with_its_texts_however_many_are_let_in() -> None:
    stream = Stream(ROWS.take([0, 1]), random.Random(0))
    stream.let_in(1000)
    assert set(islice(iter(stream), 20)) == set(ROWS.texts[:2])


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:5/v1"])
def test_the_programs_have_the_settings_that_they_were_given(endpoint: str | None) -> None:
    kafka = embedded_settings("127.0.0.1:5")
    given = teaching_settings(
        kafka, "demo-1-", Path("a folder"), store=Path("s"), day_texts=7, new_machine_labels=5, endpoint=endpoint
    )
    assert load_settings(None, child_environment({}, kafka, Path("t")), as_sets(given)).settings == given
    assert given.trainer.new_machine_labels == 5
    assert given.labeller.day_texts == 7
    assert given.labeller.teacher == ("encoder" if endpoint is None else f"endpoint:{endpoint}")


def test_an_endpoint_may_be_sent_the_texts_of_requests_and_labels_and_nothing_else() -> None:
    given = teaching_settings(
        embedded_settings("127.0.0.1:5"),
        "demo-1-",
        Path("f"),
        store=Path("s"),
        day_texts=7,
        new_machine_labels=5,
        endpoint="http://127.0.0.1:5/v1",
    )
    assert given.teacher.may_leave == ("demo-1-classify.requests:text", "demo-1-classify.labels:text")


def test_the_labels_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    names = ("sport", 'with "quotes"', "ünïcödé.dot")
    (tmp_path / "labels.toml").write_text(labels_file(names), encoding="utf-8")
    assert read_labels(tmp_path / "labels.toml").names == names


def test_the_log_of_a_labeller_tells_its_port_its_teacher_and_why_it_stopped() -> None:
    lines = (
        {"event": "admin.listening", "host": "127.0.0.1", "port": 31234},
        {"event": "teacher.ready", "teacher": "encoder-1", "evidence": "right on 9 of 10"},
        {"event": "labeller.started", "labeller": "default", "teacher": "encoder-1"},
        {"event": "labeller.does_not_ask", "labeller": "default", "why": "it obeys texts", "mend": "--resume"},
    )
    log = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    told = Said(port=31234, teacher="encoder-1", evidence="right on 9 of 10", stopped="it obeys texts")
    assert said(log) == told
    assert said(log + b'{"event": "half a li') == told
    assert said(b"") == Said()


def test_the_figures_are_those_that_a_labeller_counts() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    metrics = LabellerMetrics(registry)
    assert figures_of(generate_latest(registry).decode(), ready=True) == Figures()
    metrics.leads(leads=True)
    metrics.waiting(12)
    metrics.labelled(30, 0.5)
    metrics.reviewed(2)
    metrics.left("known", 100)
    metrics.left("queue-full", 50)
    metrics.left("failed", 3)
    metrics.left("teacher", 4)
    metrics.agreement(0.97, None)
    found = figures_of(generate_latest(registry).decode(), ready=True)
    assert found == Figures(asks=True, waiting=12, labelled=30, failed=7, plain=0.97)
    assert not figures_of(generate_latest(registry).decode(), ready=False).asks


def test_six_of_a_hundred_calls_to_the_endpoint_meet_a_fault() -> None:
    met = [fault_of(number) for number in range(300)]
    assert [met.count(fault) for fault in (Fault.RATE_LIMIT, Fault.MALFORMED, Fault.DROPPED, None)] == [3, 3, 3, 282]


def stream(**changed: object) -> Snapshot:
    given: dict[str, object] = {
        "elapsed_s": 1234.5,
        "seconds": None,
        "answered": 123_456,
        "labels": (("sport", 100), ("money", 100)),
        "rate": 1234.5,
        "p50": 0.123,
        "p99": 12.345,
        "lag": 12_345,
    }
    return Snapshot(**(given | changed))  # type: ignore[arg-type] - of these names


FIRST = Shown(people=45, teacher=0, scored=191, right=134, by="by the gate")
LAST = Shown(people=45, teacher=1345, scored=191, right=181, by="by hand")


def lesson(**changed: object) -> Lesson:
    given: dict[str, object] = {
        "doing": "labels for version 4 come in",
        "versions": (FIRST, LAST),
        "people": 50,
        "teacher": "endpoint-0123456789abcdef",
        "labeller": Figures(asks=True, waiting=1000, labelled=12_345, failed=1234, plain=1.0, planted=1.0),
        "spent": Amount(12_345, 0.5),
        "budget": Budget(day_texts=123_456, day_money=1.0),
        "stream": stream(),
    }
    return Lesson(**(given | changed))  # type: ignore[arg-type] - of these names


def drawn(now: Lesson, width: int = 80) -> str:
    on = Console(file=io.StringIO(), width=width)
    on.print(view(now).table)
    return on.file.getvalue()  # type: ignore[attr-defined] - a StringIO


def test_the_screen_shows_the_accuracy_of_each_version_and_what_it_learnt_from() -> None:
    shown = drawn(lesson())
    assert "labels for version 4 come in" in shown
    assert "│ 1       │     45 │       0 │ ██████████████······   70.2% │ by the gate │" in shown
    assert "│ 2       │     45 │   1,345 │ ███████████████████·   94.8% │ by hand     │" in shown


def test_no_line_of_the_screen_is_broken_at_80_columns() -> None:
    shown = drawn(lesson()).splitlines()
    assert max(map(len, shown)) <= 80
    for line in figures(lesson()):
        assert line in shown


def test_the_screen_can_be_drawn_before_there_is_anything_to_show() -> None:
    shown = drawn(
        lesson(
            versions=(),
            labeller=Figures(),
            spent=Amount(),
            stream=stream(answered=0, labels=(), p50=None, p99=None, lag=0),
        )
    )
    assert "no gold text was asked about so far" in shown
    assert "0 answers" in shown


def test_a_teacher_that_runs_here_costs_no_money() -> None:
    assert spent(Amount(5), Budget(day_texts=10)) == "5 texts of 10 a day, no money: the teacher runs here"
    assert spent(Amount(5, 0.25), Budget(day_texts=10, day_money=1.0)) == (
        "5 texts of 10 a day, 0.2500 of 1 money a day"
    )


def test_agreement_is_shown_for_the_kinds_that_were_asked_about() -> None:
    assert gold(Figures(plain=1.0)) == "agrees with people on 100% of gold texts"
    assert gold(Figures(plain=1.0, planted=0.5)) == (
        "agrees with people on 100% of gold texts, 50% with a planted order"
    )


def test_what_was_shown_is_said_also_where_it_went_wrong() -> None:
    assert "better by 24.6 points" in showed(50, (FIRST, LAST))
    assert "which learnt from 45 of the 50 labels of people" in showed(50, (FIRST, LAST))
    assert showed(50, (FIRST, FIRST)).endswith("So this time the teacher's labels made it NO better.")


def test_the_closing_lines_have_the_teachers_own_accuracy_and_the_audit() -> None:
    ledger = Ledger()
    ledger.published = ledger.answered = 10
    lines = closing(lesson(), Taught(texts=1000, right=950, held_out=191, held_out_right=180), ledger)
    assert "the teacher: right on 95.0% of the 1,000 texts that it labelled" in lines
    assert lines[-1] == "audit: published 10, answered 10, lost 0, repeated 0"
    assert not any("learnt from these texts" in line for line in lines)
    encoder = closing(lesson(teacher="encoder-1"), Taught(texts=0, right=0, held_out=0, held_out_right=0), ledger)
    assert any(line.endswith("(an encoder learnt from these texts, so that says little of it)") for line in encoder)
    without = closing(lesson(), Taught(texts=0, right=0, held_out=0, held_out_right=0), ledger)
    assert not any(line.startswith("the teacher") for line in without)
