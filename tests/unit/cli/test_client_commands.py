import io
from collections import Counter
from typing import Any

import msgspec
import pytest
from rich.console import Console

from headrace.client import Answer
from headrace.client.dead_letters import Found
from headrace.commands import answers, dead_letters
from headrace.commands.publish import Columns, make_records, make_requests
from headrace.core.answer_log import Hole
from headrace.core.errors import UserError
from headrace.files.table import Kind, read_stream
from headrace.kafka.interface import Outgoing
from headrace_schemas.codec import decode_request
from headrace_schemas.headers import read_timeout_ms
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, DeadLetter, Score, Status

ANSWER = Answer(
    partition=1,
    position=4,
    timestamp_ms=0,
    key=None,
    headers=(),
    result=ClassifyResult(
        offset=9, after=8, crc=0, status=Status.OK, version="v1", label="[bold]sport[/]", score=0.75, id="a"
    ),
    hole=Hole(5, 8),
)


def records(lines: bytes, kind: Kind = Kind.TEXT, columns: Columns = Columns(), **options: Any) -> list[Outgoing]:  # noqa: B008
    stream = io.BufferedReader(io.BytesIO(lines))  # type: ignore[arg-type]
    rows = read_stream(stream, "given", columns.needed(), also=("id",), kind=kind)
    return list(make_records(make_requests(rows, columns), **options))


def test_a_line_of_text_is_a_request_and_an_empty_one_is_none() -> None:
    given = records("Rates rise é\n\n  \nRain\r\n".encode(), timeout=2.0)
    assert [decode_request(record.value).text for record in given] == ["Rates rise é", "Rain"]
    assert [read_timeout_ms(record.headers) for record in given] == [2000, 2000]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (b'{"text": "Rain", "id": "7", "label": "weather", "shop": 12}', Kind.JSON),
        (b'[{"text": "Rain", "id": 7, "shop": "12"}]', Kind.JSON),
        (b"shop;id;text\n12;7;Rain", Kind.CSV),
    ],
)
def test_a_row_gives_text_id_and_key_and_its_label_is_ignored(rows: bytes, kind: Kind) -> None:
    (record,) = records(rows, kind, Columns(key="shop"))
    assert decode_request(record.value) == ClassifyRequest(text="Rain", id="7")
    assert record.key == b"12"


@pytest.mark.parametrize(
    ("lines", "kind", "key", "said"),
    [
        (b"fine\n\x81", Kind.TEXT, None, "given line 2: "),
        (b'{"text": "a"}\n{', Kind.JSON, None, "given line 2: "),
        (b'{"id": "a"}', Kind.JSON, None, "given line 1: .*text"),
        (b'{"text": 1}', Kind.JSON, None, "given line 1, 'text': must be a string, not int"),
        (b'{"text": "a", "id": true}', Kind.JSON, None, "given line 1, 'id': must be a string or a whole number"),
        (b'{"text": "a"}', Kind.JSON, "shop", "given line 1: has no 'shop'"),
        (b'{"text": "a", "shop": true}', Kind.JSON, "shop", "given line 1, 'shop': must be a string"),
        (b'{"text": "a", "shop": null}', Kind.JSON, "shop", "given line 1: shop: is to be the key"),
        (b"text,shop\na,\n", Kind.CSV, "shop", "given line 2: shop: is to be the key"),
        (b"text,shop\na," + b"x" * (1 << 20), Kind.CSV, "shop", "given line 2: .*kafka.max_request_size"),
        (b"x" * 70_000, Kind.TEXT, None, "given line 1: .*65536"),
        (b'{"text": "a", "id": "' + b"x" * 2000 + b'"}', Kind.JSON, None, "given line 1: id"),
    ],
)
def test_a_row_that_is_no_request_is_named(lines: bytes, kind: Kind, key: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        records(lines, kind, Columns(key=key))


def test_an_answer_is_one_json_line_with_its_hole() -> None:
    line = answers.as_row(answers.Seen(ANSWER))
    assert (line["partition"], line["offset"], line["label"]) == (1, 9, "[bold]sport[/]")
    assert line["hole"] == {"first": 5, "last": 8}


def test_the_table_shows_labels_as_they_are_and_marks_holes() -> None:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(answers.table([answers.Seen(ANSWER)], Counter(ok=3)))
    shown = captured.get()
    assert "1@9" in shown
    assert "[bold]sport[/]" in shown
    assert "no answer to 5 to 8" in shown
    assert "3 ok" in shown


def test_an_answer_without_a_label_is_shown_as_one_with_what_it_would_have_been() -> None:
    unsure = ClassifyResult(
        offset=9, after=8, crc=0, status=Status.OK, version="v1", score=0.4, ranking=(Score("sport", 0.4),)
    )
    assert answers.as_lines(unsure) == ["(no label)  0.400", "sport  0.400"]
    console = Console(width=140)
    with console.capture() as captured:
        console.print(answers.table([answers.Seen(msgspec.structs.replace(ANSWER, result=unsure))], Counter(ok=1)))
    assert "(no label)" in captured.get()


def test_a_label_is_shown_with_the_others_of_its_ranking() -> None:
    ranking = (Score("sport", 0.7), Score("politics", 0.2))
    sure = ClassifyResult(
        offset=9, after=8, crc=0, status=Status.OK, version="v1", label="sport", score=0.7, ranking=ranking
    )
    assert answers.as_lines(sure) == ["sport  0.700", "politics  0.200"]


def test_a_listed_dead_letter_shows_no_text() -> None:
    letter = DeadLetter(
        topic="r", partition=0, offset=3, timestamp_ms=0, stage="infer", error="poison", message="m", value=b"diary"
    )
    line = msgspec.json.decode(dead_letters.as_line(Found(0, 1, 0, letter)))
    assert (line["place"], line["offset"], line["attempt"]) == ("0@1", 3, 1)
    assert "value" not in line


def test_a_place_is_partition_and_offset() -> None:
    assert dead_letters.parse_places(["0@3", "12@7"]) == ((0, 3), (12, 7))
    for wrong in ("3", "a@1", "0@-1", "@"):
        with pytest.raises(dead_letters.PlaceError, match="PARTITION@OFFSET"):
            dead_letters.parse_places([wrong])


@pytest.mark.parametrize(("line", "kind"), [(b"Rain", Kind.TEXT), (b'{"text":"Rain"}', Kind.JSON)])
def test_a_line_becomes_a_request_of_the_shape_that_workers_read(line: bytes, kind: Kind) -> None:
    shape = RequestShape(text_path="ticket.body", id_path="ticket.number")
    (record,) = records(line, kind, shape=shape)
    assert record.value == b'{"ticket":{"body":"Rain"}}'


def test_a_shape_that_cannot_be_built_is_said_with_its_line() -> None:
    with pytest.raises(UserError, match=r"line 1: items\.3: asks for place 3 of a list"):
        records(b"Rain", shape=RequestShape(text_path="items.3"))
