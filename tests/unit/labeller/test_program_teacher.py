"""The teacher `program`: real programs, good ones and those that never end, write gigabytes or answer rubbish."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.labeller.teachers.interface import SoftLabels, TeacherError, TeacherNameError, parse_teacher
from headrace.labeller.teachers.program import ProgramTeacher, cut_to_bytes
from headrace.labeller.teachers.settings import TeacherSettings
from tests.support.waiting import until

LABELS = ("card", "refund")
HEAD = "import json, os, sys, time\ndef say(**line): print(json.dumps(line), flush=True)\n"
GOOD = """
for line in sys.stdin:
    one = json.loads(line)
    card = 3.0 if "card" in one["text"] else 1.0
    say(n=one["n"], scores={"card": card, "refund": 1.0, })
"""


def teacher_of(tmp_path: Path, body: str, environ: dict[str, str] | None = None, **changed: Any) -> ProgramTeacher:
    file = tmp_path / "label.py"
    file.write_text(HEAD + body)
    name = parse_teacher(f"program:{sys.executable} {file}")
    settings = TeacherSettings(**({"timeout": 60.0} | changed))
    return ProgramTeacher(name, LABELS, settings, os.environ if environ is None else environ)


def label(teacher: ProgramTeacher, *batches: list[str]) -> list[SoftLabels]:
    async def asked() -> list[SoftLabels]:
        try:
            return [await teacher.label(texts) for texts in batches]
        finally:
            await teacher.close()

    return asyncio.run(asked())


def codes(found: SoftLabels) -> list[str]:
    return [found.failures[place].code if place in found.failures else "" for place in range(len(found.scores))]


def test_one_process_scores_the_texts_of_many_calls_in_order(tmp_path: Path) -> None:
    pid = "import pathlib\npathlib.Path(__file__ + '.pids').open('a').write(str(os.getpid()) + '\\n')\n"
    one, two, none = label(teacher_of(tmp_path, pid + GOOD), ["a card", "x"], ["card " * 1000], [])
    np.testing.assert_allclose(one.scores, [[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(two.scores, [[0.75, 0.25]])
    assert not one.failures
    assert none.scores.shape == (0, 2)
    assert len((tmp_path / "label.py.pids").read_text().split()) == 1


def test_more_texts_than_a_pipe_holds_are_read_and_written_at_once(tmp_path: Path) -> None:
    at_the_end = """
lines = [json.loads(line) for line in iter(sys.stdin.readline, "")]
for one in lines: say(n=one["n"], label="card")
"""
    # It answers at the end of its input alone, which comes with close: so it is too slow for us, and is killed.
    (found,) = label(teacher_of(tmp_path, at_the_end, timeout=1.0), ["x" * 5000] * 64)
    assert codes(found) == ["timed-out"] * 64
    (found,) = label(teacher_of(tmp_path, GOOD), ["card " * 1600] * 64)
    assert not found.failures


def test_a_label_alone_has_the_stated_confidence_and_an_error_is_a_failure(tmp_path: Path) -> None:
    body = """
for line in sys.stdin:
    one = json.loads(line)
    say(n=one["n"], **({"label": " refund "} if one["text"] == "a" else {"error": one["text"]}))
"""
    (found,) = label(teacher_of(tmp_path, body, confidence=0.8), ["a", "secret"])
    np.testing.assert_allclose(found.scores[0], [0.2, 0.8], rtol=1e-5)
    assert codes(found) == ["", "refused"]
    assert "secret" not in found.failures[1].message


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("scores={'dog': 1}", "unknown-label"),
        ("label='dog'", "unknown-label"),
        ("scores={}", "malformed"),
        ("scores={'card': -1, 'refund': 2}", "malformed"),
        ("scores={'card': 0}", "malformed"),
        ("scores={'card': 1e308, 'refund': 1e308}", "malformed"),
    ],
)
def test_scores_that_are_none_are_counted_and_left(tmp_path: Path, answer: str, code: str) -> None:
    body = f"for line in sys.stdin: say(n=json.loads(line)['n'], {answer})"
    (found,) = label(teacher_of(tmp_path, body), ["a", "b"])
    assert codes(found) == [code, code]
    assert not found.scores.any()


def test_lines_that_are_no_answer_are_counted_and_texts_without_a_line_are_missing(tmp_path: Path) -> None:
    body = """
print("loading the model", flush=True)
for line in sys.stdin:
    n = json.loads(line)["n"]
    if n == 1: print('{"n": 1, "scores": ', flush=True)
    elif n == 2: say(n=0, label="refund"); say(n=77, label="refund"); say(n=2, label="card")
    else: say(n=n, label="card")
"""
    teacher = teacher_of(tmp_path, body)
    (found,) = label(teacher, ["a", "b", "c"])
    assert codes(found) == ["", "missing", ""]
    assert (found.scores[[0, 2]].argmax(1) == 0).all()
    assert teacher.malformed == 4


def test_a_program_that_says_nothing_is_killed_with_all_it_started_and_started_anew(tmp_path: Path) -> None:
    body = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(__file__ + ".child", "a").write(f"{child.pid}\\n")
for line in sys.stdin:
    one = json.loads(line)
    if one["text"] == "hang": time.sleep(600)
    say(n=one["n"], label="card")
"""
    teacher = teacher_of(tmp_path, body, timeout=5.0)
    hung, well = label(teacher, ["good", "hang", "later"], ["good"])
    assert codes(hung) == ["", "timed-out", "timed-out"]
    assert "5 s (teacher.timeout)" in hung.failures[1].message
    assert all(one.passing for one in hung.failures.values())
    assert codes(well) == [""]
    for pid in (tmp_path / "label.py.child").read_text().split():
        asyncio.run(until(lambda pid=pid: is_gone(pid)))


def is_gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    "body",
    ["while True: sys.stdout.write('x' * 65536)", "while True: print('{}')", "while True: print('x' * 1000)"],
    ids=["one-line", "empty-objects", "lines"],
)
def test_a_program_that_writes_endlessly_is_killed(tmp_path: Path, body: str) -> None:
    (found,) = label(teacher_of(tmp_path, body), ["a", "b"])
    assert codes(found) == ["malformed", "malformed"]


def test_a_program_that_ends_at_once_is_said_with_what_it_said(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path, "sys.exit('no such model')")
    with pytest.raises(TeacherError, match="exit code 1") as ended:
        label(teacher, ["a"])
    assert "no such model" in "".join(ended.value.__notes__)
    assert "no such model" not in str(ended.value)


def test_a_program_that_ends_in_between_leaves_the_rest(tmp_path: Path) -> None:
    body = 'one = json.loads(sys.stdin.readline()); say(n=one["n"], label="card")'
    (found,) = label(teacher_of(tmp_path, body), ["a", "b"])
    assert codes(found) == ["", "ended"]


def test_a_command_that_is_none_is_refused_in_words() -> None:
    settings = TeacherSettings()
    with pytest.raises(TeacherError, match="can't be started"):
        label(ProgramTeacher(parse_teacher("program:/no/such/program"), LABELS, settings, {}), ["a"])
    with pytest.raises(TeacherError, match="taken apart"):
        ProgramTeacher(parse_teacher("program:a 'b"), LABELS, settings, {})
    with pytest.raises(TeacherNameError):
        parse_teacher("program:")


def test_a_program_does_not_get_our_secrets(tmp_path: Path) -> None:
    body = 'open(__file__ + ".env", "w").write(json.dumps(dict(os.environ)))\n' + GOOD
    environ = dict(os.environ) | {"HEADRACE_TEACHER__API_KEY": "sesame", "OWN": "1"}
    label(teacher_of(tmp_path, body, environ), ["a"])
    told = (tmp_path / "label.py.env").read_text()
    assert "sesame" not in told
    assert '"OWN"' in told


def test_a_changed_program_is_another_version(tmp_path: Path) -> None:
    one = teacher_of(tmp_path, GOOD).identity.version
    assert teacher_of(tmp_path, GOOD).identity.version == one
    assert teacher_of(tmp_path, GOOD + "# mended").identity.version != one


def test_a_text_is_cut_between_characters() -> None:
    assert cut_to_bytes("aäb", 2) == "a"
    assert cut_to_bytes("aäb", 3) == "aä"
    assert cut_to_bytes("\ud800", 9) == "?"
