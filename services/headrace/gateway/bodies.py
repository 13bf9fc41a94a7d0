"""The bodies of headrace's own endpoints, as structs, and how a body becomes the texts that are asked about.

A text comes as itself (text/plain, or a JSON string), as an object, or as one of a list; whoever writes one form where
another is meant is understood all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from headrace_schemas.records import ClassifyResult, Explanation, Score

T = TypeVar("T")

MOST_RANKED = 20
MAX_KEY_BYTES = 1024

Ranking = Annotated[int, Meta(ge=0, le=MOST_RANKED)]
Seconds = Annotated[float, Meta(ge=0.001, le=3600)]


class ClassifyItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One text. ``id`` is the caller's own and comes back with the answer; texts of one ``key`` are answered in order.

    ``ranking`` is how many labels the answer ranks, at most as many as the workers give (worker.ranking).
    """

    text: str
    id: str | None = None
    key: str | None = None
    ranking: Ranking | None = None


class ClassifyBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One ``text`` or many ``texts``. ``timeout`` is in seconds: a text that is older is answered `expired`.

    With ``explain`` an answer says what each word added to its label, where the workers do so (worker.explain).
    """

    text: str | None = None
    texts: list[str | ClassifyItem] | None = None
    id: str | None = None
    key: str | None = None
    ranking: Ranking | None = None
    timeout: Seconds | None = None
    explain: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What became of one text.

    ``place`` is its id, PARTITION@OFFSET of the request in the log: the answer can be asked for by it later. ``status``
    is `ok`, `expired`, `failed`, or `lost` (the log holds no answer and never will), and while there is none `pending`;
    `unknown` says that nobody knows whether the text was published, `unpublished` that it was not. An `ok` without a
    ``label`` scored below the version's threshold.
    """

    status: str
    place: str | None = None
    label: str | None = None
    score: float | None = None
    ranking: tuple[Score, ...] = ()
    version: str | None = None
    id: str | None = None
    reason: str | None = None
    explanation: Explanation | None = None


class Answers(msgspec.Struct, frozen=True):
    """The answers to many texts, in their order."""

    answers: tuple[Answer, ...]


class Wanted(NamedTuple):
    """What a call asks: texts, whether it was a single one, and how long it waits."""

    items: list[ClassifyItem]
    single: bool
    timeout: float | None = None
    explain: bool = False


class BadBodyError(ValueError):
    """A body that is none of the forms; ``field`` is the part that is wrong, ``is_json`` whether it is JSON at all."""

    def __init__(self, detail: str, field: str | None = None, *, is_json: bool = True) -> None:
        super().__init__(detail)
        self.field = field
        self.is_json = is_json


_AT = re.compile(r"(.*) - at `(?:key in )?\$\.?([^`]*)`", re.DOTALL)
_classify = msgspec.json.Decoder(str | ClassifyBody | list[str | ClassifyItem])
FORMS = 'a text, {"text": "..."}, {"texts": ["...", {"text": "...", "id": "..."}]} or a list'


def decoded(decode: Callable[[bytes], T], body: bytes, forms: str) -> T:
    """Decode JSON. Raises BadBodyError, which names the field, or says that it is no JSON and which ``forms`` are."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        found = _AT.fullmatch(str(error))
        words, field = (str(error), None) if found is None else (found[1], found[2] or None)
        raise BadBodyError(f"{words}; expected is {forms}.", field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "" if body.lstrip()[:1] in (b"{", b"[", b'"') else " A bare text needs content-type: text/plain."
        # Of a decoding error Python's own words may quote the body.
        words = str(error) if isinstance(error, msgspec.DecodeError) else "it is not UTF-8, or nested too deeply"
        raise BadBodyError(f"The body is no JSON: {words}.{hint}", is_json=False) from None


def parse_text(body: bytes) -> Wanted:
    """A body that is the text itself. Raises BadBodyError where it is not UTF-8."""
    try:
        return Wanted([ClassifyItem(text=body.decode())], single=True)
    except UnicodeDecodeError:
        raise BadBodyError("The body is not UTF-8.", is_json=False) from None


def parse_classify(body: bytes) -> Wanted:
    """The texts of a JSON body. Raises BadBodyError."""
    found = decoded(_classify.decode, body, FORMS)
    if isinstance(found, str):
        return Wanted([ClassifyItem(text=found)], single=True)
    if isinstance(found, list):
        return Wanted([_item(one) for one in found], single=False)
    if found.text is not None and found.texts is not None:
        raise BadBodyError("text and texts exclude each other: give one of them.", "texts")
    if found.text is not None:
        item = ClassifyItem(text=found.text, id=found.id, key=found.key, ranking=found.ranking)
        return Wanted([item], single=True, timeout=found.timeout, explain=found.explain)
    if found.texts is None:
        raise BadBodyError(f"There is neither text nor texts; expected is {FORMS}.", "text")
    if found.id is not None:
        raise BadBodyError("Many texts have no id in common: write it at each of them.", "id")
    items = [_item(one) for one in found.texts]
    if found.key is not None or found.ranking is not None:
        items = [
            msgspec.structs.replace(
                one,
                key=found.key if one.key is None else one.key,
                ranking=found.ranking if one.ranking is None else one.ranking,
            )
            for one in items
        ]
    return Wanted(items, single=False, timeout=found.timeout, explain=found.explain)


def _item(one: str | ClassifyItem) -> ClassifyItem:
    return ClassifyItem(text=one) if isinstance(one, str) else one


def answer_of(result: ClassifyResult, place: tuple[int, int], ranking: int | None = None) -> Answer:
    """The answer as callers get it, with at most ``ranking`` labels ranked."""
    return Answer(
        status=result.status,
        place=place_text(place),
        label=result.label,
        score=result.score,
        ranking=result.ranking if ranking is None else result.ranking[:ranking],
        version=result.version or None,
        id=result.id,
        reason=result.reason,
        explanation=result.explanation,
    )


def place_text(place: tuple[int, int]) -> str:
    """PARTITION@OFFSET."""
    return f"{place[0]}@{place[1]}"


_PLACE = re.compile(r"([0-9]{1,6})@([0-9]{1,18})")


def parse_place(text: str) -> tuple[int, int] | None:
    """Partition and offset of PARTITION@OFFSET, None for anything else."""
    found = _PLACE.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))
