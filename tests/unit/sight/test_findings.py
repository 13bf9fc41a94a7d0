"""What looks wrong in a status, rule by rule; and the screen that shows it."""

from __future__ import annotations

import msgspec
import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.commands.status import COLUMNS, coloured, screen
from headrace.process.ports import free_ports
from headrace.sight.findings import Level, findings_of, worst
from headrace.sight.processes import Process
from headrace.sight.status import (
    Alias,
    Group,
    GroupMember,
    Labeller,
    LastTraining,
    Letter,
    Letters,
    PartitionLag,
    Running,
    Status,
)

NOW = 1_764_000_000_000
MOVED = NOW - 3_600_000
CHAMPION = Alias(alias="champion", version="v2", moved_ms=MOVED)
WELL = Status(
    at_ms=NOW,
    bootstrap="kafka:9092",
    model="default",
    followed="champion",
    brokers=3,
    groups=(Group(role="workers", name="headrace", state="Stable", members=(GroupMember("10.0.0.1", 2),)),),
    partitions=(PartitionLag(partition=0, lag=0, lag_s=0.0), PartitionLag(partition=1, lag=0, lag_s=0.0)),
    lag=0,
    lag_s=0.0,
    requests_s=10.0,
    answers_s=10.0,
    aliases=(CHAMPION,),
    running=(Running("v2", 2, NOW),),
    letters=Letters(0, {}, ()),
)
NOBODY = (Group(role="workers", name="headrace", state="Empty"),)
TRAINERS = Group(role="trainer", name="headrace-trainer-election", state="Empty")
BEHIND = {
    "lag": 2000,
    "lag_s": 30.0,
    "partitions": (
        PartitionLag(partition=0, lag=1000, lag_s=30.0),
        PartitionLag(partition=1, lag=1000, lag_s=1.0),
    ),
}
HOT = (PartitionLag(partition=0, lag=1990, lag_s=30.0), PartitionLag(partition=1, lag=10, lag_s=1.0))
SILENT = tuple(PartitionLag(partition=n, lag=1000, lag_s=30.0, answered_ms=NOW - 29_000) for n in range(2))
LETTER = Letter(NOW, "bad-bytes", "is no JSON", "classify.requests/1@7")


@pytest.mark.parametrize(
    ("changed", "check", "level", "mend"),
    [
        ({"away": "Nothing listens at kafka:9092."}, "kafka", Level.ERROR, "headrace doctor"),
        ({"unknown": {"groups": "no right"}}, "unknown.groups", Level.WARNING, "headrace doctor"),
        ({"missing": ("classify.requests",)}, "topics.missing", Level.ERROR, "headrace topics apply"),
        ({"unanswerable": 2}, "topics.partitions", Level.ERROR, "headrace topics apply --grow"),
        ({"groups": NOBODY}, "workers.none", Level.WARNING, "headrace worker"),
        ({"groups": NOBODY, **BEHIND}, "workers.none", Level.ERROR, "headrace worker"),
        (BEHIND, "workers.late", Level.WARNING, "headrace worker"),
        ({**BEHIND, "answers_s": 0.0}, "workers.stuck", Level.ERROR, "readyz"),
        ({**BEHIND, "partitions": SILENT}, "workers.stuck", Level.ERROR, "readyz"),
        ({**BEHIND, "lag_s": 1.0, "partitions": HOT}, "workers.hot", Level.WARNING, "runbook"),
        ({"aliases": (), "running": ()}, "versions.champion", Level.ERROR, "headrace models publish FILE"),
        ({"aliases": ()}, "versions.champion", Level.WARNING, "headrace models promote VERSION"),
        (
            {"aliases": (msgspec.structs.replace(CHAMPION, recorded=False),)},
            "versions.record",
            Level.ERROR,
            "headrace models rollback",
        ),
        ({"running": (Running("v1", 1, NOW),)}, "versions.differ", Level.WARNING, "headrace models show v2"),
        (
            {"letters": Letters(3, {"bad-bytes": 1}, (LETTER,))},
            "dead_letters",
            Level.WARNING,
            "headrace dead-letters list",
        ),
        (
            {"training": LastTraining(state="failed", begun_ms=MOVED, error="out of memory")},
            "training.failed",
            Level.WARNING,
            "headrace models train --now --wait",
        ),
        (
            {"training": LastTraining(state="running", begun_ms=MOVED), "groups": (*WELL.groups, TRAINERS)},
            "training.left",
            Level.WARNING,
            "headrace trainer",
        ),
        (
            {"labellers": (Labeller("endpoint:x", stopped=True, reason="gold"),)},
            "labeller.stopped",
            Level.WARNING,
            "headrace labeller --resume",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.count(".") == 1 else "",
)
def test_each_thing_that_is_wrong_is_found_alone_and_has_its_mend(changed, check, level, mend):
    status = msgspec.structs.replace(WELL, **changed)
    [found] = findings_of(status)
    assert (found.check, found.level) == (check, level)
    assert mend in found.mend
    assert any("$" in line and mend in line for line in screen(msgspec.structs.replace(status, findings=(found,))))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"lag": 5, "lag_s": 2.0},
        {"running": (Running("v1", 1, MOVED + 5_000), Running("v2", 1, NOW))},  # at the swap, and idle since
        {"followed": "model.safetensors", "aliases": ()},
        {"aliases": (CHAMPION, Alias(alias="challenger", version="v3", moved_ms=NOW))},
        {"training": LastTraining(state="running", begun_ms=MOVED)},
        {"labellers": (Labeller("endpoint:x", stopped=False, reason=None),)},
    ],
)
def test_what_is_as_it_should_be_is_not_found(changed):
    assert findings_of(msgspec.structs.replace(WELL, **changed)) == ()


def test_the_worst_come_first():
    found = findings_of(msgspec.structs.replace(WELL, unknown={"groups": "no right"}, missing=("a", "b"), **BEHIND))
    assert [one.level for one in found] == sorted((one.level for one in found), key=list(Level).index, reverse=True)
    assert worst(found) is Level.ERROR
    assert worst(()) is Level.OK


def test_a_screen_is_80_columns_and_shows_nothing_that_a_terminal_obeys():
    hostile = "\x1b[2J" + "x" * 300
    status = msgspec.structs.replace(
        WELL,
        bootstrap=hostile,
        groups=(Group(role="workers", name=hostile, state="Stable", members=(GroupMember(hostile, None),)),),
        partitions=tuple(PartitionLag(partition=n, lag=10**12, lag_s=None, answered_ms=NOW) for n in range(1000)),
        lag=10**15,
        aliases=(Alias(alias=hostile, version=hostile, moved_ms=2**62, pinned=True),),
        running=(Running(hostile, 1000, -(2**62)),),
        training=LastTraining(state="failed", begun_ms=NOW, error=hostile),
        letters=Letters(10**9, {hostile: 1}, (Letter(NOW, hostile, hostile, hostile),) * 20),
        labellers=(Labeller(hostile, stopped=True, reason=hostile),),
        processes=(Process(address=hostile, ready=False, why=hostile, version=hostile),) * 50,
        unknown={hostile: hostile},
    )
    lines = screen(msgspec.structs.replace(status, findings=findings_of(status)))
    assert max(map(len, lines)) <= COLUMNS
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 80


def test_a_terminal_is_shown_the_same_lines_with_what_is_wrong_in_colour():
    status = msgspec.structs.replace(WELL, letters=Letters(1, {"bad-bytes": 1}, (LETTER,)), **BEHIND)
    lines = screen(msgspec.structs.replace(status, findings=findings_of(status)))
    shown = coloured(lines)
    assert shown.plain.split("\n") == lines
    styled = {shown.plain[span.start : span.end]: str(span.style) for span in shown.spans}
    assert styled["warning"] == "yellow"
    assert styled["WHAT LOOKS WRONG"] == "bold"
    assert styled["         $ headrace worker"] == "cyan"


def test_a_dead_letter_is_shown_with_its_time_of_today_its_place_once_and_why():
    letter = Letter(NOW - 1000, "bad-bytes", "classify.requests[1]@7: value is no JSON", "classify.requests/1@7")
    lines = screen(msgspec.structs.replace(WELL, letters=Letters(1, {"bad-bytes": 1}, (letter,))))
    assert "  15:59:59 bad-bytes classify.requests/1@7 value is no JSON" in lines
    old = msgspec.structs.replace(letter, at_ms=NOW - 86_400_000)
    lines = screen(msgspec.structs.replace(WELL, letters=Letters(1, {"bad-bytes": 1}, (old,))))
    assert "  2025-11-23 16:00:00 bad-bytes classify.requests/1@7 value is no JSON" in lines


def test_the_json_is_the_struct():
    status = msgspec.structs.replace(WELL, findings=findings_of(WELL))
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 1, "Nothing listens at"),
        (("--json",), 1, '"check":"kafka"'),
        (("--admin", "nowhere"), 2, "no HOST:PORT"),
    ],
)
def test_the_command_ends_with_1_where_kafka_does_not_answer(tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    [port] = free_ports(1)
    result = CliRunner().invoke(cli.app, ["--bootstrap", f"127.0.0.1:{port}", "status", *arguments])
    assert result.exit_code == code, result.output
    assert said in " ".join(result.output.split())
