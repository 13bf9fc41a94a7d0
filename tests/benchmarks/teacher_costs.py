"""What teachers take, and what a million answers cost with and without them.

    python -m tests.benchmarks.teacher_costs FOLDER [--set banking77] [--texts 1000] [--asked 10000]
        [--price-input 0.15] [--price-output 0.60] [--core-hour 0.04]

FOLDER is that of tests/benchmarks/accuracy.py. Each teacher labels so many texts in a process of its own, whose peak
memory is told: the encoder of the installed wheel, frozen, fitted to two rows a class, as only time counts; an
endpoint, whose stand-in (`headrace.demo.chat_server`) runs in another process; and a program that is the same
classifier as the stand-in. What the stand-in computes is not counted, nor would that of a provider be; its tokens are
counted as four characters each.

A million answers are reckoned from --answers, the CPU seconds of a worker for 100,000 (docs/benchmarks.md),
--training, the CPU seconds of a training, and --asked, the texts that a teacher is asked about. Prices are for a
million tokens, and for an hour of one core; without them the money is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from headrace.demo.chat_server import ChatServer, chat_server, naive_bayes
from headrace.labeller.teachers.interface import Spent, parse_teacher
from headrace.labeller.teachers.opening import open_teacher
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.learning.data.files import Rows
from tests.benchmarks.teaching import EACH, choose, read

MILLION = 1_000_000
FITTED = 2
"""Rows of each class that the encoder learns from."""
TEACHERS = ("encoder", "endpoint", "program")


class Took(msgspec.Struct, frozen=True):
    """What labelling ``texts`` took: ``wall`` and ``cpu`` seconds, its programs' included, ``ready`` seconds before the
    first text, and ``peak`` MB of memory.
    """

    texts: int
    ready: float
    wall: float
    cpu: float
    peak: float
    spent: Spent

    @property
    def cpu_a_text(self) -> float:
        return self.cpu / self.texts


def cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


async def measure(name: str, rows: Rows, texts: list[str]) -> Took:
    """Label ``texts`` by the teacher ``name`` in this process."""
    begun = time.monotonic()
    settings = TeacherSettings(model="made-up", tune="never", threads=os.cpu_count(), concurrency=8)
    teacher = open_teacher(parse_teacher(name), settings, environ=dict(os.environ), train=rows)
    ready, before, since = time.monotonic() - begun, cpu_seconds(), time.monotonic()
    spent = Spent()
    for first in range(0, len(texts), teacher.batch):
        found = await teacher.label(texts[first : first + teacher.batch])
        if found.failures:
            raise SystemExit(f"{name}: {next(iter(found.failures.values())).message}")
        spent += found.spent
    wall = time.monotonic() - since
    await teacher.close()
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Took(len(texts), ready, wall, cpu_seconds() - before, max(peaks) / 1024, spent)


def in_a_process(name: str, inputs: Path) -> Took:
    command = [sys.executable, "-m", "tests.benchmarks.teacher_costs", "--measure", name, "--inputs", str(inputs)]
    return msgspec.json.decode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout, type=Took)


def answer_as_program(inputs: Path) -> None:
    """Be the program that the program teacher runs."""
    rows, _ = inputs_of(inputs)
    labels = sorted(set(rows.labels))
    classify = naive_bayes(rows.texts, rows.labels)
    for line in sys.stdin:
        one = json.loads(line)
        scores = dict(zip(labels, classify([one["text"]], labels)[0].tolist(), strict=True))
        print(json.dumps({"n": one["n"], "scores": scores}), flush=True)


def inputs_of(file: Path) -> tuple[Rows, list[str]]:
    texts, labels, asked = json.loads(file.read_text(encoding="utf-8"))
    return Rows(tuple(texts), tuple(labels)), asked


def reckon(took: dict[str, Took], given: argparse.Namespace) -> None:
    """Print the table of a million answers."""
    answers = given.answers * MILLION / 100_000
    encoder, endpoint = took["encoder"], took["endpoint"]

    def tokens(texts: int) -> tuple[float, float]:
        share = texts / endpoint.texts
        return endpoint.spent.input_tokens * share / 1e6, endpoint.spent.output_tokens * share / 1e6

    def line(who: str, cpu: float, texts_sent: int = 0) -> None:
        sent, said = tokens(texts_sent)
        money = cpu / 3600 * given.core_hour + sent * given.price_input + said * given.price_output
        shown = f"{money:,.4f}" if given.price_input or given.core_hour else ""
        counted = f"{sent:,.1f} + {said:,.1f}" if texts_sent else ""
        print(f"| {who} | {cpu:,.0f} | {counted} | {shown} |")

    asked = f"{given.asked:,} texts"
    print("\n| a million answers by | CPU s | million tokens | money |\n|---|---|---|---|")
    line("headrace", answers)
    line(f"headrace, taught by the encoder on {asked}", answers + given.training + given.asked * encoder.cpu_a_text)
    line("the encoder itself", MILLION * encoder.cpu_a_text)
    by_endpoint = answers + given.training + given.asked * endpoint.cpu_a_text
    line(f"headrace, taught by the endpoint on {asked}", by_endpoint, given.asked)
    line("the endpoint itself", MILLION * endpoint.cpu_a_text, MILLION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--set", default="banking77")
    parser.add_argument("--texts", type=int, default=1000, help="that each teacher labels")
    parser.add_argument("--asked", type=int, default=10_000, help="texts of a million that a teacher is asked about")
    parser.add_argument("--answers", type=float, default=1.09, help="CPU seconds of a worker for 100,000 answers")
    parser.add_argument("--training", type=float, default=113.0, help="CPU seconds of a training")
    parser.add_argument("--price-input", type=float, default=0.0, help="of a million tokens that are sent")
    parser.add_argument("--price-output", type=float, default=0.0, help="of a million tokens of the answers")
    parser.add_argument("--core-hour", type=float, default=0.0, help="the price of an hour of one core")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure == "answer":
        answer_as_program(given.inputs)
        return
    if given.measure:
        rows, texts = inputs_of(given.inputs)
        print(msgspec.json.encode(asyncio.run(measure(given.measure, rows, texts))).decode())
        return
    if given.folder is None:
        parser.error("no data folder: give it as argument or in HEADRACE_DATA")
    labelled, asked = choose(read(given.folder, given.set)[0], EACH, 0)
    counts: Counter[str] = Counter()
    places = [place for place, label in enumerate(labelled.labels) if counts.update([label]) or counts[label] <= FITTED]
    rows, texts = labelled.take(places), asked[: given.texts]
    took: dict[str, Took] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.json"
        inputs.write_text(json.dumps([rows.texts, rows.labels, texts]), encoding="utf-8")
        program = shlex.join([sys.executable, "-m", "tests.benchmarks.teacher_costs", "--measure", "answer"])
        with chat_server(ChatServer(naive_bayes(rows.texts, rows.labels))) as url:
            names = ("encoder", f"endpoint:{url}", f"program:{program} --inputs {shlex.quote(str(inputs))}")
            for kind, name in zip(TEACHERS, names, strict=True):
                took[kind] = in_a_process(name, inputs)
                print(took[kind], file=sys.stderr)
    print(f"{given.set}, {len(set(rows.labels))} labels, {len(texts):,} texts, {os.cpu_count()} cores\n")
    print("| teacher | texts/s | CPU ms a text | ready after s | peak MB | tokens a text, sent + said |")
    print("|---|---|---|---|---|---|")
    for kind, one in took.items():
        spent = one.spent
        tokens = f"{spent.input_tokens / one.texts:,.0f} + {spent.output_tokens / one.texts:,.0f}"
        print(
            f"| {kind} | {one.texts / one.wall:,.0f} | {1000 * one.cpu_a_text:,.1f} | {one.ready:.1f} | {one.peak:,.0f}"
            f" | {tokens if spent.input_tokens else ''} |"
        )
    reckon(took, given)


if __name__ == "__main__":
    main()
