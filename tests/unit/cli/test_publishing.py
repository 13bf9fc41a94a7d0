"""`headrace publish` and `headrace labels publish` on the twin: all of a file or none of it, and what is said of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.commands import labels, publish, sending
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError, with_notes
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, Record, TopicPartition, TopicSpec
from headrace_schemas import decode_label, decode_request
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.cluster import MemoryProducer

REQUESTS, LABELS = "classify.requests", "classify.labels"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    monkeypatch.setattr(publish, "cluster_of", lambda settings: cluster)
    monkeypatch.setattr(labels, "cluster_of", lambda settings: cluster)
    monkeypatch.setattr("headrace.commands.erase.cluster_of", lambda settings: cluster)
    for name in (REQUESTS, LABELS):
        cluster.create_topic(TopicSpec(name=name, partitions=1))
    return cluster


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """What makes bytes the whole of the standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        for command in (publish, labels):
            monkeypatch.setattr(command, "standard_input", lambda: stream)

        def write(content: bytes) -> None:
            os.write(writing, content)
            os.close(writing)

        yield write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)


def records(cluster: MemoryCluster, topic: str) -> Sequence[Record]:
    return cluster.log(TopicPartition(topic, 0)).records


def requests(cluster: MemoryCluster) -> list[tuple[str, str | None, bytes | None]]:
    decoded = [(decode_request(record.value), record.key) for record in records(cluster, REQUESTS)]
    return [(request.text, request.id, key) for request, key in decoded]


def test_of_a_file_with_a_bad_line_nothing_is_sent(cluster: MemoryCluster, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("good\n" * 10_500 + "x" * 70_000 + "\n")
    with pytest.raises(UserError, match=r"texts\.txt line 10501: .*65536"):
        run("publish", file)
    assert requests(cluster) == []


ROWS = [{"number": 7, "body": "one; two", "shop": "a"}, {"number": 8, "body": 'said "three", four', "shop": "b"}]
AS_CSV = 'number,body,shop\n7,one; two,a\n8,"said ""three"", four",b\n'
WAYS: dict[str, Callable[[Path], object]] = {
    "rows.csv": lambda file: file.write_text(AS_CSV),
    "rows": lambda file: file.write_text(json.dumps(ROWS)),
    "rows.csv.gz": lambda file: file.write_bytes(gzip.compress(AS_CSV.encode("utf-16"))),
    "rows.tsv": lambda file: file.write_text('number\tbody\tshop\n7\tone; two\ta\n8\t"said ""three"", four"\tb\n'),
    "rows.jsonl": lambda file: file.write_text("\n".join(map(json.dumps, ROWS))),
    "rows.json": lambda file: file.write_text(json.dumps(ROWS, indent=1)),
    "rows.parquet": lambda file: parquet.write_table(pa.Table.from_pylist(ROWS), file),
}


@pytest.mark.parametrize("name", WAYS)
def test_rows_of_a_table_become_requests_with_ids_and_keys(cluster: MemoryCluster, tmp_path: Path, name: str) -> None:
    WAYS[name](tmp_path / name)
    columns = ("--text-column", "body", "--id-column", "number", "--key-column", "shop")
    assert run("publish", tmp_path / name, *columns).output.startswith("published 2 requests to classify.requests")
    assert requests(cluster) == [("one; two", "7", b"a"), ('said "three", four', "8", b"b")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows", "a text\nanother", "--lines text sends each line as a text"),
        ("rows.dat", "text;label\na;b\n", "--lines csv reads a table"),
        ("rows.txt", "\nid,text\n1,a\n", "line 2: seems to be CSV"),
        ("rows.log", '{"text": "a"}\n', "line 1: seems to be JSONL"),
        ("rows.xlsx", "", "is an Excel workbook"),
        ("rows.csv", "body\na\n", "must have one column 'text'"),
    ],
)
def test_what_a_file_is_is_never_guessed(
    cluster: MemoryCluster, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        run("publish", tmp_path / name)
    assert requests(cluster) == []


def test_lines_are_sent_as_they_are_where_that_is_asked_for(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,a\n")
    run("publish", tmp_path / "rows.csv", "--lines", "text")
    assert [text for text, _, _ in requests(cluster)] == ["id,text", "1,a"]
    with pytest.raises(UserError, match="a line of text has no columns"):
        run("publish", tmp_path / "rows.csv", "--lines", "text", "--id-column", "id")


def test_ids_that_come_again_and_rows_without_a_text_are_told(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,text\n1,a\n2,b\n1,c\n3, \n,d\n,e\n")
    ended = run("publish", tmp_path / "r.csv")
    assert "WARNING: 1 row has the id of an earlier one, first '1' at " in ended.stderr
    assert "r.csv line 4" in ended.stderr
    assert "; left out 1 without a text" in ended.stdout
    assert requests(cluster) == [
        ("a", "1", None),
        ("b", "2", None),
        ("c", "1", None),
        ("d", None, None),
        ("e", None, None),
    ]


def test_a_delimiter_and_an_encoding_may_be_named(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("text~id\nпривет~1\n".encode("koi8-r"))
    run("publish", tmp_path / "r.csv", "--delimiter", "~", "--encoding", "koi8-r")
    assert requests(cluster) == [("привет", "1", None)]


def test_what_went_before_may_be_skipped(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a\n\nb\nc\n")
    assert run("publish", tmp_path / "texts.txt", "--skip", 2).output.startswith("published 1 request to")
    assert [text for text, _, _ in requests(cluster)] == ["c"]


def test_an_error_in_the_middle_of_a_pipe_says_how_many_went(
    cluster: MemoryCluster, piped: Callable[[bytes], None]
) -> None:
    piped(b"a\nb\nno\0text\nc\n")
    with pytest.raises(UserError, match="standard input line 3: ") as ended:
        run("publish", "-", "--skip", 1)
    assert "1 request to classify.requests was published. --skip 2 goes on behind them." in with_notes(ended.value)
    assert [text for text, _, _ in requests(cluster)] == ["b"]


def test_a_pipe_that_is_named_as_a_file_is_read_as_one(cluster: MemoryCluster, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    writer = threading.Thread(target=(tmp_path / "pipe.jsonl").write_text, args=('{"text": "a", "id": "1"}\n',))
    writer.start()
    assert run("publish", tmp_path / "pipe.jsonl").exit_code == 0
    writer.join()
    assert requests(cluster) == [("a", "1", None)]


@pytest.mark.parametrize("content", [b"id,text\n1,a\n", b'{"text": "a"}\n'])
def test_a_table_in_a_pipe_is_not_sent_as_lines_of_text(
    cluster: MemoryCluster, piped: Callable[[bytes], None], content: bytes
) -> None:
    piped(content)
    with pytest.raises(UserError, match="standard input line 1: seems to be"):
        run("publish", "-")
    assert requests(cluster) == []


ROWS_OF_LABELS = "n,text,label\n1,good,a\n2, ,a\n3,Good,a\n4,bad,\n5,odd,a\n6,odd,b\n7,fine,b\n"


def published_labels(cluster: MemoryCluster) -> list[tuple[str, str, str]]:
    return [
        ((record.key or b"").decode(), (label := decode_label(record.value)).text, label.label)
        for record in records(cluster, LABELS)
    ]


def test_labels_leave_out_what_training_would_and_count_it(cluster: MemoryCluster, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(ROWS_OF_LABELS)
    ended = run("labels", "publish", file, "--id-column", "n")
    assert ended.output == "published 2 labels to classify.labels; left out: 2 empty, 1 duplicate, 2 conflicting\n"
    assert published_labels(cluster) == [("1", "good", "a"), ("7", "fine", "b")]


def test_of_labels_without_an_id_nothing_is_sent(cluster: MemoryCluster, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('n,text,label\n1,"go\nod",a\n, ,a\n,fine,b\n')
    with pytest.raises(UserError, match=r"rows\.csv line 5: the label has no id"):
        run("labels", "publish", file, "--id-column", "n")
    assert published_labels(cluster) == []


def test_labels_whose_ids_come_again_are_told(cluster: MemoryCluster, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("n,text,label\n1,good,a\n1,fine,b\n")
    assert "WARNING: 1 row has the id of an earlier one" in run("labels", "publish", file, "--id-column", "n").stderr


@pytest.mark.parametrize("rows", [ROWS_OF_LABELS, '{"text":"good","label":"a"}\n{"text":"","label":"a"}\n'])
def test_labels_of_a_pipe_leave_out_what_holds_nothing(
    cluster: MemoryCluster, piped: Callable[[bytes], None], rows: str
) -> None:
    piped(rows.encode())
    ended = run("labels", "publish", "-")
    assert "; left out: " in ended.output
    assert published_labels(cluster)[0][1:] == ("good", "a")
    assert all(text != " " for _, text, _ in published_labels(cluster))


def test_labels_of_a_pipe_that_is_broken_say_how_many_went(
    cluster: MemoryCluster, piped: Callable[[bytes], None]
) -> None:
    piped(b"text,label\ngood,a\nfine,b\nx\n")
    with pytest.raises(UserError, match="standard input line 4: ") as ended:
        run("labels", "publish", "-")
    assert "2 labels to classify.labels were published. All may be published again" in with_notes(ended.value)


class Sent:
    """What a producer was given, which fails at the third batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[sending.Send]:
        async def send(batch: Sequence[Outgoing]) -> None:
            await asyncio.sleep(0)
            if len(self.batches) == 2:
                raise BrokerUnavailableError("away")
            self.batches.append(len(batch))

        yield send


def sent(given: Iterator[Outgoing], tell: Callable[[int], None] = lambda _: None) -> int:
    return sending.send_all(given, Sent().connected, noun="thing", topic="t", go_on=lambda n: f"On by {n}.", tell=tell)


def test_a_broker_that_goes_away_in_the_middle_leaves_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BATCH", 1)
    with pytest.raises(BrokerUnavailableError) as ended:
        sent(iter([Outgoing(b"")] * 9))
    assert ended.value.__notes__ == ["2 things to t were published, and of 1 more it is unknown. On by 2."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_comes_ends_it_with_what_went(number: signal.Signals) -> None:
    release = threading.Event()

    def endless() -> Iterator[Outgoing]:
        yield Outgoing(b"")
        release.wait()

    try:
        with pytest.raises(sending.StoppedError, match=f"{number.name}. 1 thing to t was published. On by 1.") as ended:
            sent(endless(), lambda _: os.kill(os.getpid(), number))
    finally:
        release.set()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    assert ended.value.exit_code == 128 + number


@pytest.mark.parametrize(("kept", "times"), [(publish.KEPT_BYTES, 1), (100, 2)])
def test_a_file_is_read_again_only_where_its_records_are_too_many_to_keep(
    cluster: MemoryCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, times: int
) -> None:
    path = tmp_path / "texts.txt"
    reads: list[Path] = []
    path.write_text("one\ntwo\nthree\n")
    read = publish.read_file

    def counted(path: Path, *arguments: object, **more: object) -> Iterator[object]:
        reads.append(path)
        return read(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(publish, "read_file", counted)
    monkeypatch.setattr(publish, "KEPT_BYTES", kept)
    assert run("publish", path).exit_code == 0
    assert [text for text, _, _ in requests(cluster)] == ["one", "two", "three"]
    assert len(reads) == times


def test_many_records_are_handed_over_whole_and_in_order() -> None:
    records = [Outgoing(b"%d" % number) for number in range(50_000)]
    taken: list[Outgoing] = []

    @asynccontextmanager
    async def connected() -> AsyncIterator[sending.Send]:
        async def send(batch: Sequence[Outgoing]) -> None:
            assert len(batch) <= sending.BATCH
            taken.extend(batch)
            await asyncio.sleep(0)

        yield send

    assert sending.send_all(iter(records), connected, noun="record", topic="t", go_on=str) == len(records)
    assert taken == records


def test_a_fault_of_the_reading_comes_behind_what_was_read() -> None:
    def broken() -> Iterator[Outgoing]:
        yield Outgoing(b"")
        raise UserError("line 2")

    with pytest.raises(UserError, match="line 2") as ended:
        sent(broken())
    assert ended.value.__notes__ == ["1 thing to t was published. On by 1."]


def test_where_nothing_went_that_is_said() -> None:
    def broken() -> Iterator[Outgoing]:
        raise UserError("line 1")
        yield

    with pytest.raises(UserError) as ended:
        sent(broken())
    assert ended.value.__notes__ == ["Nothing was published."]


def away_at(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """The broker goes away at the batch behind ``least`` of them."""
    sent, send_many = [0], MemoryProducer.send_many

    async def failing(self: MemoryProducer, topic: str, records: Sequence[Outgoing], **more: int) -> object:
        sent[0] += 1
        if sent[0] > least:
            raise BrokerUnavailableError("away")
        return await send_many(self, topic, records, **more)

    monkeypatch.setattr(MemoryProducer, "send_many", failing)


LONG = "text,label\ngood,a\n" + "long " * 20_000 + ",a\nfine,b\nodd," + "n" * 600_000 + "\n"


@pytest.mark.parametrize("piped_in", [False, True])
def test_labels_that_a_training_finds_too_long_are_left_out_counted_and_named(
    cluster: MemoryCluster, tmp_path: Path, piped: Callable[[bytes], None], piped_in: bool
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(LONG)
    if piped_in:
        writing = threading.Thread(target=piped, args=(LONG.encode(),))
        writing.start()
    ended = run("labels", "publish", "-" if piped_in else file)
    assert "published 2 labels to classify.labels; left out: 2 too long" in ended.output
    named = f"{'standard input' if piped_in else file} line 3: the text has 100,000 bytes"
    assert f"WARNING: too long to be learnt: {named}, and trainer.max_text_bytes allows 65,536" in ended.stderr
    assert [(text, label) for _, text, label in published_labels(cluster)] == [("good", "a"), ("fine", "b")]


def test_more_labels_than_a_training_takes_are_refused_before_anything_is_sent(
    cluster: MemoryCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\ngood,a\nfine,b\nodd,c\n")
    with pytest.raises(UserError, match=r"there are 3 labels, and trainer\.max_labels allows 2"):
        run("--set", "trainer.max_labels=2", "labels", "publish", file)
    assert published_labels(cluster) == []


def test_an_erasure_in_which_the_broker_goes_away_says_how_many_went(
    cluster: MemoryCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("n,text,label\n1,good,a\n2,fine,b\n3,odd,c\n")
    run("labels", "publish", file, "--id-column", "n")
    monkeypatch.setattr(sending, "BATCH", 1)
    away_at(monkeypatch, 2)
    with pytest.raises(BrokerUnavailableError) as ended:
        run("labels", "erase", "1", "2", "3")
    assert ended.value.__notes__ == [
        (
            "2 tombstones to classify.labels were published, and of 1 more it is unknown. The same command may be run "
            "again: it erases what is still there."
        )
    ]
