"""Tasks for annotation tools, and the annotations that people made there, in the files of Label Studio and Argilla.

Label Studio (https://labelstud.io/guide/task_format): a JSON array of tasks, each with ``data``, ``annotations`` and
``predictions``; an annotation has ``result``, of which an item of type ``choices`` names the label. Its exports as
JSON-MIN and CSV are tables with the columns text and label. Argilla 2
(``Dataset.records.from_json`` and ``to_json``): an array of records with ``fields``, ``metadata``, ``suggestions``, and
``responses`` by question.

If several people annotated a text, a label counts only if more than half of them chose it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from headrace.core.text import label_name
from headrace.files.table import Kind, Reading, Row, check_file, find_kind, read_file

TEXT = "text"
LABEL = "label"
AT = "at"
ANSWERED = "answered"
SOURCE = "source"
LABELLED_AT = "labelled_at_ms"
BY = "by"
REPLACES = "replaces"
GUESSED = "guessed"
VERSION = "version"
EXTRAS = (SOURCE, LABELLED_AT, AT, ANSWERED, BY, REPLACES, GUESSED, VERSION)
"""Columns of a row of labels besides text, label and id."""

_MOST_MS = 2**53
_CHOICES = "choices"
_LEFT = ("discarded", "draft")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A text that somebody is asked to label.

    ``at`` is the place of its request as PARTITION@OFFSET. ``answered`` is the answer of ``version`` with ``score``,
    None for no label. ``why`` says in words why it was chosen, ``source`` the same for programs. ``id`` is the
    request's. ``guessed`` is the likeliest label, also of an answer without one.
    """

    at: str
    text: str
    version: str
    why: str
    source: str
    answered: str | None = None
    guessed: str | None = None
    score: float | None = None
    id: str | None = None
    blind: bool = False
    """Whether the answer is hidden from the person who labels it."""

    def row(self) -> dict[str, object]:
        """The columns of a table, with an empty ``label`` to fill in."""
        return {
            "at": self.at,
            "text": self.text,
            "label": "",
            "answered": self.answered or "",
            "score": "" if self.score is None else round(self.score, 6),
            "why": self.why,
            "source": self.source,
            "id": self.id or "",
        }

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return self.at


class Doubted(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled text whose label, ``given``, somebody is asked to look at again.

    ``answered`` is the label that ``version`` holds for likely, with ``score``; ``given_score`` is that of the given
    one. ``joint`` is the share of all rows that are such a pair. ``number`` is the row's in its file, counted from 1.
    ``replaces`` is the id that the label has on its topic, with its ``source`` and ``labelled_at_ms``.
    """

    text: str
    given: str
    answered: str
    given_score: float
    score: float
    joint: float
    why: str
    version: str
    source: str
    labelled_at_ms: int | None = None
    number: int | None = None
    replaces: str | None = None
    blind: bool = False

    def row(self) -> dict[str, object]:
        """The columns of a table; ``label`` is empty, for who corrects the given one."""
        return {
            "text": self.text,
            "label": "",
            "given": self.given,
            "likely": self.answered,
            "given_score": round(self.given_score, 6),
            "likely_score": round(self.score, 6),
            "margin": round(self.score - self.given_score, 6),
            "joint": round(self.joint, 6),
            "why": self.why,
            "source": self.source,
            "labelled_at_ms": "" if self.labelled_at_ms is None else self.labelled_at_ms,
            "row": "" if self.number is None else self.number,
            "replaces": self.replaces or "",
        }

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return self.replaces or f"row {self.number}"


AnyTask = Task | Doubted


def label_studio_tasks(tasks: Iterable[AnyTask]) -> list[dict[str, object]]:
    """Tasks to import into Label Studio, whose labelling configuration has a ``Choices`` named label of ``text``.

    The answer is shown as a prediction, unless the task is ``blind``.
    """
    return [
        {"data": _hidden(task.row(), blind=task.blind), "predictions": [] if task.blind else _predictions(task)}
        for task in tasks
    ]


def _predictions(task: AnyTask) -> list[dict[str, object]]:
    if task.answered is None:
        return []
    choice = {"from_name": LABEL, "to_name": TEXT, "type": _CHOICES, "value": {_CHOICES: [task.answered]}}
    return [{"model_version": task.version, "score": task.score or 0.0, "result": [choice]}]


def argilla_records(tasks: Iterable[AnyTask]) -> list[dict[str, object]]:
    """Records for ``Dataset.records.from_json`` of Argilla, with a field ``text`` and a label question ``label``."""
    records: list[dict[str, object]] = []
    for task in tasks:
        suggestion = {"value": task.answered, "score": task.score, "agent": task.version}
        metadata = {name: value for name, value in _hidden(task.row(), blind=task.blind).items() if name != TEXT}
        records.append(
            {
                "id": task.name,
                "fields": {TEXT: task.text},
                "metadata": metadata,
                "suggestions": {} if task.blind or task.answered is None else {LABEL: suggestion},
                "responses": {},
                "vectors": {},
            }
        )
    return records


def _hidden(row: Mapping[str, object], *, blind: bool) -> dict[str, object]:
    """``row`` without the empty label, and, for a ``blind`` task, without the answer."""
    left = {name: value for name, value in row.items() if name != LABEL and value != ""}
    if blind and ANSWERED in left:
        # Whether the answer had a label is not hidden, because it says whether anybody waits for a review.
        left[ANSWERED] = "(hidden)"
        left.pop("score", None)
    return left


class Annotated(msgspec.Struct, frozen=True, kw_only=True):
    """A person's annotation of a text. ``label`` is "" without a valid one.

    ``where`` names the file and the line. ``at`` is PARTITION@OFFSET of its request; ``answered``: the request was
    answered with a label. ``replaces`` is the id of the label that this one corrects. ``guessed`` is the label that
    ``version`` held for the likeliest.
    """

    where: str
    text: str
    label: str
    id: str | None = None
    source: str | None = None
    labelled_at_ms: int | None = None
    at: tuple[int, int] | None = None
    answered: bool = False
    by: str | None = None
    replaces: str | None = None
    guessed: str | None = None
    version: str | None = None


def extras_of(row: Row) -> Annotated:
    """The extra columns of a row, besides text, label and id. Values of another meaning are ignored, because other
    tools use such column names too.
    """
    return _extras(row.where, row.values)


def _extras(where: str, values: Mapping[str, object]) -> Annotated:
    told = {name: value for name in EXTRAS if isinstance(value := values.get(name), str) and value}
    return Annotated(
        where=where,
        text="",
        label="",
        source=told.get(SOURCE),
        labelled_at_ms=_milliseconds(values.get(LABELLED_AT)),
        at=place_of(values.get(AT)),
        answered=bool(values.get(ANSWERED)),
        by=told.get(BY),
        replaces=told.get(REPLACES),
        guessed=told.get(GUESSED),
        version=told.get(VERSION) if GUESSED in told else None,
    )


def place_of(given: object) -> tuple[int, int] | None:
    """Partition and offset of a text such as 3@1204, None for anything else."""
    partition, found, offset = given.partition("@") if isinstance(given, str) else ("", "", "")
    if not found or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (partition, offset)):
        return None
    return int(partition), int(offset)


def _milliseconds(given: object) -> int | None:
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 17:
        given = int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 < given < _MOST_MS else None


class Columns(msgspec.Struct, frozen=True):
    """The columns of a row's text and label, and of its id if it has one."""

    text: str = TEXT
    label: str = LABEL
    id: str | None = None

    @property
    def needed(self) -> list[str]:
        """Those that there have to be."""
        return [self.text, self.label, *([] if self.id is None else [self.id])]


def read_labelled(
    path: Path, columns: Columns, reading: Reading, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Annotated]:
    """The contents of each row of a file of labels, also of exports of annotation tools.

    Raises DatasetError naming an invalid row.
    """
    check_file(path)
    if (annotated := read_annotations(path, reading)) is not None:
        yield from annotated
        return
    for row in read_file(path, columns.needed, also=(*EXTRAS, "id"), reading=reading, tell=tell):
        yield msgspec.structs.replace(
            extras_of(row),
            text=row.string(columns.text),
            label=label_name(row.string(columns.label, numbers=True)),
            id=_id_of(row, columns),
        )


def _id_of(row: Row, columns: Columns) -> str | None:
    """The id in the named column; for a review without one, the value of the column id."""
    if columns.id is not None:
        return row.string(columns.id, numbers=True)
    return given if isinstance(given := row.values.get("id"), str) and given else None


def read_annotations(path: Path, reading: Reading) -> Iterator[Annotated] | None:
    """The annotations in an export of Label Studio or Argilla; None for any other file.

    Raises DatasetError for a file that can't be read.
    """
    if find_kind(path) is not Kind.JSON:
        return None
    first = next(read_file(path, None, reading=reading), None)
    if first is None:
        return None
    if isinstance(first.values.get("data"), dict) and isinstance(first.values.get("annotations"), list):
        return (
            _of_label_studio(row) for row in read_file(path, ("data",), also=("annotations", "id"), reading=reading)
        )
    if isinstance(first.values.get("fields"), dict) and "responses" in first.values:
        return map(_of_argilla, read_file(path, ("fields",), also=("metadata", "responses"), reading=reading))
    return None


def _of_label_studio(row: Row) -> Annotated:
    data, annotations = _mapping(row.values.get("data")), _list(row.values.get("annotations"))
    counted = [one for one in map(_mapping, annotations) if one and not one.get("was_cancelled")]
    named = [(_choice(one), _moment(one.get("updated_at") or one.get("created_at"))) for one in counted]
    label = _majority([choice for choice, _ in named if choice])
    times = [time for choice, time in named if choice == label and time is not None]
    return _annotated(row.where, data, _string(data.get(TEXT)), label, max(times, default=None))


def _choice(annotation: Mapping[str, object]) -> str:
    """The label of an annotation. If there are several questions, that of the question named label."""
    items = [one for one in map(_mapping, _list(annotation.get("result"))) if one.get("type") == _CHOICES]
    named = [one for one in items if one.get("from_name") == LABEL] or items
    choices = [choice for one in named for choice in _list(_mapping(one.get("value")).get(_CHOICES))]
    return choices[0] if len(choices) == 1 and isinstance(choices[0], str) else ""


def _of_argilla(row: Row) -> Annotated:
    fields, by_question = _mapping(row.values.get("fields")), _mapping(row.values.get("responses"))
    responses = _list(by_question.get(LABEL)) or _list(next(iter(by_question.values()), None))
    given = [one for one in map(_mapping, responses) if one.get("status") not in _LEFT]
    label = _majority([value for one in given if isinstance(value := one.get("value"), str) and value])
    text = fields.get(TEXT) if isinstance(fields.get(TEXT), str) else next(iter(fields.values()), None)
    return _annotated(row.where, _mapping(row.values.get("metadata")), _string(text), label, None)


def _annotated(where: str, values: Mapping[str, object], text: str, label: str, time_ms: int | None) -> Annotated:
    extras = _extras(where, values)
    id_ = _string(values.get("id")) or None
    return msgspec.structs.replace(
        extras, text=text, label=label, id=id_, labelled_at_ms=time_ms or extras.labelled_at_ms
    )


def _majority(labels: Sequence[str]) -> str:
    """The label with more than half of the votes, "" if there is none."""
    ((label, votes),) = Counter(labels).most_common(1) or [("", 0)]
    return label if 2 * votes > len(labels) else ""


def _moment(given: object) -> int | None:
    try:
        time = dt.datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        return None
    if time is None:
        return None
    return _milliseconds(int((time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp() * 1000))


def _mapping(given: object) -> Mapping[str, object]:
    return given if isinstance(given, dict) else {}


def _list(given: object) -> Sequence[object]:
    return given if isinstance(given, list) else ()


def _string(given: object) -> str:
    return given if isinstance(given, str) else str(given) if isinstance(given, int) else ""
