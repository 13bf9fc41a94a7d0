"""What the teaching demo shows: versions with their accuracy, labels and what they cost, live and at the end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Group
from rich.table import Table

from headrace.core.spending import Amount, Budget
from headrace.core.text import quantity
from headrace.demo.labelling import Figures
from headrace.demo.screen import FIGURES, View, audit, line, milliseconds
from headrace.demo.stream import Ledger, Snapshot

BAR = 20


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A version: rows of ``people`` and of the ``teacher`` that it learnt from, how many held-out texts it answered
    and how many of them right, and who promoted it.
    """

    people: int
    teacher: int
    scored: int
    right: int
    by: str

    @property
    def accuracy(self) -> float:
        return self.right / self.scored if self.scored else 0.0


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """The demo at one moment. ``doing`` says what it waits for; ``people`` is how many texts people labelled."""

    doing: str
    versions: tuple[Shown, ...]
    people: int
    teacher: str
    labeller: Figures
    spent: Amount
    budget: Budget
    stream: Snapshot


def view(now: Lesson) -> View:
    """The table with the lines below it, and the one line of a screen that is none."""
    newest = f"version {len(now.versions)} {now.versions[-1].accuracy:.1%}; " if now.versions else ""
    plain = f"{now.doing}; {newest}{now.labeller.labelled:,} labelled by the teacher   {line(now.stream)}"
    return View(now.stream.elapsed_s, Group(versions_table(now), *figures(now)), plain)


def versions_table(now: Lesson) -> Table:
    """A row for each version."""
    table = Table("version", title=f"{now.stream.elapsed_s:.0f} s   {now.doing}", title_justify="left")
    for name in ("people", "teacher"):
        table.add_column(name, justify="right")
    table.add_column("right on held-out texts", no_wrap=True)
    table.add_column("promoted", no_wrap=True)
    for number, one in enumerate(now.versions, 1):
        full = round(BAR * one.accuracy)
        bar = f"{'█' * full}{'·' * (BAR - full)}  {one.accuracy:6.1%}" if one.scored else ""
        table.add_row(str(number), f"{one.people:,}", f"{one.teacher:,}", bar, one.by)
    return table


def figures(now: Lesson) -> list[str]:
    """Labels, what they cost, the teacher's agreement with people, and the answers; each a line of 80 columns."""
    labeller = now.labeller
    return [
        f"labels   {now.people:,} by people, {labeller.labelled:,} by {now.teacher}",
        f"         {labeller.waiting:,} wait for the teacher, it failed on {labeller.failed:,}",
        f"spent    {spent(now.spent, now.budget)}",
        f"gold     {gold(labeller)}",
        f"answers  {line(now.stream)}",
    ]


def spent(amount: Amount, budget: Budget) -> str:
    """Texts and money, each of the day's budget."""
    texts = f"{amount.texts:,} texts of {budget.day_texts or 0:,} a day"
    if budget.day_money is None:
        return f"{texts}, no money: the teacher runs here"
    return f"{texts}, {amount.money:.4f} of {budget.day_money:g} money a day"


def gold(labeller: Figures) -> str:
    """The agreement with people on gold texts."""
    if labeller.plain is None:
        return "no gold text was asked about so far"
    planted = "" if labeller.planted is None else f", {labeller.planted:.0%} with a planted order"
    return f"agrees with people on {labeller.plain:.0%} of gold texts{planted}"


class Taught(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher said in the end: how often it was right, of the unlabelled texts and of the held-out ones."""

    texts: int
    right: int
    held_out: int
    held_out_right: int


def closing(end: Lesson, taught: Taught, ledger: Ledger) -> list[str]:
    """What the demo showed, in plain words."""
    lines = [showed(end.people, end.versions)]
    if taught.texts:
        right = taught.right / taught.texts
        lines.append(f"the teacher: right on {right:.1%} of the {taught.texts:,} texts that it labelled")
    if taught.held_out:
        right = taught.held_out_right / taught.held_out
        lines.append(f"(on the held-out texts {right:.1%}; no version learns from its labels of those)")
    learnt = (
        "\n(an encoder learnt from these texts, so that says little of it)" if end.teacher.startswith("encoder") else ""
    )
    times = f"p50 {milliseconds(end.stream.p50)}, p99 {milliseconds(end.stream.p99)}"
    return [
        *lines,
        f"spent: {spent(end.spent, end.budget)}",
        f"gold texts: {gold(end.labeller)}{learnt}",
        f"latency of the stream: {times}\n({FIGURES}; trainings and the teacher compute on the same cores)",
        audit(ledger),
    ]


def showed(people: int, versions: Sequence[Shown]) -> str:
    """Whether the last version is better than the first, and by what."""
    first, last = versions[0], versions[-1]
    figures = (
        f"version 1, which learnt from {first.people:,} of the {quantity(people, 'label')} of people and tests itself "
        f"by the others:\n{first.accuracy:.1%} of {first.scored:,} held-out texts right\n"
        f"version {len(versions)}, with {last.teacher:,} labels of the teacher beside them: {last.accuracy:.1%}\n"
    )
    points = 100 * (last.accuracy - first.accuracy)
    if points > 0:
        return (
            f"{figures}So the texts of its own stream made it better by {points:.1f} points. People labelled nothing "
            "more, and no answer waited for the teacher."
        )
    return f"{figures}So this time the teacher's labels made it NO better."
