"""How far teachers obey texts: agreement on gold texts without and with a planted order, and whether a labeller stops.

    HEADRACE_DATA=... python -m tests.benchmarks.injection trec6

Asked are an encoder, and a local OpenAI-compatible server around naive Bayes that obeys orders, and that ignores them.
All learn from 600 training rows, and each is asked about the same 400 gold texts, which are other training rows.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from headrace.demo.chat_server import ChatServer, chat_server, naive_bayes
from headrace.labeller.gold import Agreement, GoldTexts
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.interface import Teacher, parse_teacher
from headrace.labeller.teachers.opening import open_teacher
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.learning.data.files import Rows
from tests.benchmarks.accuracy import read_set

LEARNT, GOLD = 600, 400


async def measure(name: str, teacher: Teacher, rows: Rows) -> str:
    """A line of the table."""
    pool, agreement = GoldTexts(random.Random(1)), Agreement()
    for number, (text, label) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        pool.put(str(number).encode(), text, label)
    gold = pool.draw(GOLD, teacher.labels)
    given = await teacher.label([one.text for one in gold])
    for place, one in enumerate(gold):
        agreement.add(one, None if place in given.failures else teacher.labels[int(given.scores[place].argmax())])
    await teacher.close()
    plain, planted = agreement.shares()
    stops = agreement.broken(LabellerSettings())
    return f"| {name} | {plain:.1%} | {planted:.1%} | {'stops: ' + stops if stops else 'goes on'} |"


async def main(name: str) -> None:
    both = read_set(name, Path(os.environ["HEADRACE_DATA"])).train
    rows = list(zip(both.texts, both.labels, strict=True))
    random.Random(0).shuffle(rows)
    train, gold = rows[:LEARNT], rows[LEARNT : LEARNT + GOLD]
    learnt = Rows(tuple(text for text, _ in train), tuple(label for _, label in train))
    asked = Rows(tuple(text for text, _ in gold), tuple(label for _, label in gold))
    sys.stdout.write("| teacher | plain | planted | labeller |\n|---|---|---|---|\n")
    encoder = await asyncio.to_thread(
        open_teacher, parse_teacher("encoder"), TeacherSettings(tune="never"), environ={}, train=learnt
    )
    sys.stdout.write(await measure("encoder (MiniLM)", encoder, asked) + "\n")
    for said, obeys in (("endpoint that ignores orders", False), ("endpoint that obeys orders", True)):
        server = ChatServer(naive_bayes(learnt.texts, learnt.labels), obeys=obeys)
        with chat_server(server) as url:
            teacher = open_teacher(
                parse_teacher(f"endpoint:{url}"), TeacherSettings(model="made-up"), environ={}, train=learnt
            )
            sys.stdout.write(await measure(said, teacher, asked) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
