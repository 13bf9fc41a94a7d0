import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headrace.process.logs import BURST, BURST_S, MOST_MESSAGES, BurstHandler, Recurring, configure, event


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("headrace").setLevel(logging.NOTSET)


def test_an_event_is_one_json_object_on_one_line(stream: io.StringIO) -> None:
    configure(stream, form="json")
    event("partition.resumed", partition=3, why="two\nlines")
    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("level", "event", "partition", "why")} == {
        "level": "info",
        "event": "partition.resumed",
        "partition": 3,
        "why": "two\nlines",
    }
    assert line["time"].endswith("Z")


def test_a_readable_event_quotes_what_would_break_its_line(stream: io.StringIO) -> None:
    configure(stream)
    event("commit.failed", level="warning", error="no\nleader", partition=1)
    assert stream.getvalue().endswith('Z warning commit.failed error="no\\nleader" partition=1\n')


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_stays_on_the_line_of_its_event(stream: io.StringIO, form: str) -> None:
    configure(stream, form=form)
    try:
        Path("/no/such/folder").iterdir().__next__()
    except OSError as error:
        event("artifact.failed", level="error", exception=error)
    assert stream.getvalue().count("\n") == 1
    assert "No such file" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


def test_the_text_of_a_request_can_not_be_logged() -> None:
    with pytest.raises(ValueError, match="texts are never logged"):
        event("request.failed", text="my secret diary")


def test_a_long_field_is_cut(stream: io.StringIO) -> None:
    configure(stream, form="json")
    event("request.failed", error="x" * 100_000)
    assert len(stream.getvalue()) < 3000


@pytest.mark.parametrize("form", ["json", "text"])
def test_figures_have_four_digits_and_all_those_before_the_point(stream: io.StringIO, form: str) -> None:
    configure(stream, form=form)
    event(
        "training.epoch",
        loss=1.0924298565417405,
        cross_entropy=6.668651622021571e-05,
        seconds=-123456.789012,
        shares=[1.0008553266525269, (0.25, 1.406857967376709)],
        score={"latency_us": 0.9327906259703774},
        bytes=10845648,
        never=float("inf"),
        none=0.0,
    )
    line = stream.getvalue()
    assert not re.search(r"\.\d*[1-9]\d{4}", line.partition("training.epoch")[2])
    for figure in (
        "1.092",
        "6.669e-05",
        "-123457.0",
        "1.001",
        "0.25",
        "1.407",
        "0.9328",
        "10845648",
        "Infinity",
        "0.0",
    ):
        assert figure in line


def test_nested_fields_are_flat_in_a_readable_event_and_nested_in_json(stream: io.StringIO) -> None:
    fields: dict[str, Any] = {"plan": {"filters": 96, "bits": {"wide": 8}, "wide": {}}, "tuning": "none"}
    configure(stream)
    event("training.compressed", **fields)
    assert stream.getvalue().endswith(" plan.filters=96 plan.bits.wide=8 plan.wide={} tuning=none\n")
    stream.truncate(0)
    stream.seek(0)
    configure(stream, form="json")
    event("training.compressed", **fields)
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in fields} == fields


def test_what_fails_again_and_again_is_logged_ever_more_rarely_and_counted(stream: io.StringIO) -> None:
    configure(stream, form="json")
    now = 0.0
    recurring = Recurring("resume.failed", monotonic=lambda: now)
    for tenth in range(10 * 3600):
        now = tenth / 10
        recurring.event(error=f"no leader {tenth}")
    now += 61
    recurring.event(error="another day")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["error"], line.get("held_back")) for line in said[:3]] == [
        ("no leader 0", None),
        ("no leader 100", 99),
        ("no leader 300", 199),
    ]
    assert len(said) < 15
    assert said[-1]["error"] == "another day"
    assert {line["level"] for line in said} == {"warning"}
    assert sum(1 + line.get("held_back", 0) for line in said) == 10 * 3600 + 1


def test_an_event_below_the_level_is_not_written(stream: io.StringIO) -> None:
    configure(stream, level="warning")
    event("worker.started")
    assert stream.getvalue() == ""


def test_a_warning_of_another_library_is_an_event_named_after_its_logger(stream: io.StringIO) -> None:
    configure(stream, form="json")
    logging.getLogger("aiokafka.consumer").warning("heartbeat failed: %s", "gone")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["message"]) == ("aiokafka.consumer", "heartbeat failed: gone")


def test_another_library_that_repeats_itself_is_held_back_and_counted(stream: io.StringIO) -> None:
    configure(stream, form="json")
    logger = logging.getLogger("another.library")
    for second in (0.0, 0.1, 0.2, 11.0):
        record = logger.makeRecord(logger.name, logging.ERROR, "f", 1, "no node %d", (int(second),), None)
        record.created = 1_000_000.0 + second
        logger.handle(record)
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["message"], line.get("held_back")) for line in said] == [
        ("another.library", "no node 0", None),
        ("another.library", "no node 11", 2),
    ]


def test_our_own_events_are_never_held_back(stream: io.StringIO) -> None:
    configure(stream, form="json")
    for _ in range(3):
        event("partition.resumed", level="warning", partition=1)
    assert len(stream.getvalue().splitlines()) == 3


SHAPELESS = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_field_turns_a_line_round_breaks_it_or_moves_a_cursor(stream: io.StringIO, form: str) -> None:
    configure(stream, form=form)
    for at in range(0, len(SHAPELESS), 100):
        # Without a space too: such a value is shown without quotes where it can be.
        piece = "".join(SHAPELESS[at : at + 100])
        event("request.failed", error=piece, label=f"a {piece}b", places=[piece], **{piece[:1] or "x": 1})
    logging.getLogger("another.library").error("went wrong: %s", "".join(SHAPELESS))
    lines = stream.getvalue().split("\n")
    assert not set("".join(lines)) & set(SHAPELESS)
    assert len(lines) == len(range(0, len(SHAPELESS), 100)) + 2
    stream.getvalue().encode()


def test_what_json_says_is_what_was_logged(stream: io.StringIO) -> None:
    configure(stream, form="json")
    text = "".join(one for one in SHAPELESS if unicodedata.category(one) != "Cs")
    event("request.failed", error=text)
    assert json.loads(stream.getvalue())["error"] == text


SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "log-schema.json").read_text(encoding="utf-8"))


def test_lines_of_json_keep_to_the_documented_schema(stream: io.StringIO) -> None:
    configure(stream, form="json", level="debug")
    event("partition.resumed", level="debug", partition=3, shares=[1.0], at={"offset": 1})
    event("hostile.names", time=7, message="a\u202emessage")
    logging.getLogger("library").warning("away: %s", "why")
    event("store.failed", level="error", exception=OSError("no disk"))
    for _ in range(BURST + 3):
        event("request.failed", level="warning")
    for handler in logging.getLogger().handlers:
        handler.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert lines[-1]["event"] == "log.burst"
    assert (lines[-1]["of"], lines[-1]["more"]) == ("request.failed", 3)


def burst(stream: io.StringIO, clock: list[float]) -> BurstHandler:
    handler = BurstHandler(stream, monotonic=lambda: clock[0])
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def record(name: str, level: int = logging.WARNING) -> logging.LogRecord:
    made = logging.LogRecord("headrace", level, "", 0, name, None, None)
    made.event, made.fields = name, {}
    return made


def test_a_burst_of_one_error_is_summarized_and_others_go_out_beside_it() -> None:
    stream, clock = io.StringIO(), [0.0]
    handler = burst(stream, clock)
    for _ in range(BURST + 1240):
        handler.handle(record("request.failed"))
    handler.handle(record("commit.failed"))
    for _ in range(BURST + 7):
        handler.handle(record("partition.resumed", logging.INFO))
    assert stream.getvalue().count("request.failed") == BURST
    assert stream.getvalue().count("commit.failed") == 1
    assert stream.getvalue().count("partition.resumed") == BURST + 7
    clock[0] = BURST_S
    handler.handle(record("request.failed"))
    last = stream.getvalue().splitlines()[-2:]
    assert last == ["log.burst of=request.failed more=1240 seconds=60.0", "request.failed"]
    handler.close()
    assert stream.getvalue().splitlines()[-2:] == last


def test_the_end_of_a_burst_is_told_without_a_further_line() -> None:
    stream, clock = io.StringIO(), [0.0]
    handler = burst(stream, clock)
    for _ in range(BURST):
        handler.handle(record("request.failed"))
    clock[0] = BURST_S - 0.01
    handler.handle(record("request.failed"))
    assert handler._end is not None
    handler._end.join()
    assert stream.getvalue().splitlines()[-1] == "log.burst of=request.failed more=1 seconds=60.0"


def test_the_table_of_bursts_is_bounded() -> None:
    stream, clock = io.StringIO(), [0.0]
    handler = burst(stream, clock)
    for number in range(3 * MOST_MESSAGES):
        handler.handle(record(f"event.{number}"))
    assert len(handler._seen) <= MOST_MESSAGES


def test_a_burst_whose_stream_was_closed_meanwhile_is_told_to_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure(stream)
    former = logging.getLogger().handlers[0]
    for _ in range(BURST + 5):
        event("request.failed", level="error")
    stream.close()

    configure(last := io.StringIO())
    assert former._end is None
    former.tell()
    assert last.getvalue() == ""
    assert "Logging error" not in capsys.readouterr().err
