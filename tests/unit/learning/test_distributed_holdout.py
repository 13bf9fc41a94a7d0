"""Rows that an operator set aside: read from files, stores and topics, and the same for the whole of a training."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.files import DatasetError
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.learning.data.split import UNKEYED, Splits
from headrace.learning.data.validation import text_keys
from headrace.learning.distributed.collectives import Alone, Exchange
from headrace.learning.distributed.comparison import NO_ROWS, Holdout, keep_to, read_holdout
from headrace.learning.distributed.job import Job, StoredCheckpoints, TopicSource
from headrace.learning.distributed.rank import run
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model import store
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText, OffsetRange
from tests.support.exchange import run_ranks
from tests.support.memory_kafka import MemoryCluster
from tests.support.places import ANYWHERE
from tests.support.turned_loop import TurnedClock, run_turned

LINES = b"".join(
    msgspec.json.encode({"text": text, "label": label}) + b"\n"
    for text, label in (("one film", "good "), ("another film", "bad"), ("One  Film", "good"), ("", "bad"))
)
TEXTS = ("one film", "another film")


def read(place: str, exchange: Exchange | None = None, cluster: MemoryCluster | None = None) -> Holdout:
    return read_holdout(place, cluster, exchange or Alone(), hashing=UNKEYED.hashing, max_text_bytes=1024)


def test_a_file_and_what_a_store_has_are_read_and_cleaned_as_labels_are(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES)
    store.write(ANYWHERE.locate("memory://holdout/rows.jsonl"), LINES, "t")
    for place in (str(file), "memory://holdout/rows.jsonl"):
        found = read(place)
        assert (found.rows.texts, found.rows.labels) == (TEXTS, ("good", "bad"))
        assert found.keys == set(text_keys(TEXTS))


def test_of_a_topic_the_last_label_of_each_id_counts_and_an_erased_one_does_not() -> None:
    async def main() -> MemoryCluster:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="aside", partitions=2))
        for partition, id_, text in (
            (0, b"1", "old"),
            (0, b"1", "one film"),
            (1, b"2", "another film"),
            (1, b"3", "x"),
        ):
            value = encode_label(LabelledText(text=text, label="good"))
            await cluster.producer().send_batch("aside", partition, [Outgoing(value, id_)])
        await cluster.producer().send_batch("aside", 1, [Outgoing(None, b"3")])
        return cluster

    cluster = run_turned(main())
    assert read("topic:aside", cluster=cluster).rows.texts == TEXTS
    with pytest.raises(DatasetError, match=r"no topic elsewhere, which gate\.holdout names"):
        read("topic:elsewhere", cluster=cluster)


def test_of_one_id_on_two_partitions_the_last_record_counts_as_in_a_training() -> None:
    async def main() -> MemoryCluster:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="aside", partitions=2))
        records = (
            # The second partition was added later: where an id hashes to another, its earlier record stays.
            (0, b"1", encode_label(LabelledText(text="old", label="bad")), 1),
            (1, b"1", encode_label(LabelledText(text="one film", label="good")), 2),
            (0, b"2", encode_label(LabelledText(text="erased", label="bad")), 1),
            (1, b"2", None, 2),
            (0, b"3", encode_label(LabelledText(text="another film", label="good")), 3),
        )
        for partition, id_, value, time_ms in records:
            await cluster.producer().send_batch("aside", partition, [Outgoing(value, id_, timestamp_ms=time_ms)])
        return cluster

    found = read("topic:aside", cluster=run_turned(main())).rows
    assert sorted(found.texts) == ["another film", "one film"]


def test_rank_0_reads_and_all_ranks_know_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES)
    first, second = run_ranks(2, lambda exchange: read(str(file) if exchange.rank == 0 else "not here", exchange))
    assert (first.rows.texts, second.rows) == (TEXTS, NO_ROWS)
    assert (first.keys, first.digest) == (second.keys, second.digest)


def test_a_holdout_without_a_row_is_refused_as_nothing_could_be_judged_by_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"")
    with pytest.raises(DatasetError, match="has no row with a text and a label to decide by"):
        read(str(file))


def test_a_training_that_goes_on_keeps_to_the_holdout_that_it_began_with(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES)
    checkpoints = StoredCheckpoints(tmp_path.as_uri(), Alone(), ANYWHERE)
    keep_to(read(str(file)), checkpoints, "rows.jsonl")
    keep_to(read(str(file)), checkpoints, "rows.jsonl")
    file.write_bytes(LINES + b'{"text": "a third", "label": "bad"}\n')
    with pytest.raises(DatasetError, match="were changed while this training ran"):
        keep_to(read(str(file)), checkpoints, "rows.jsonl")


@pytest.mark.parametrize(
    ("given", "digest", "said"),
    [
        ("elsewhere.jsonl", None, "was begun with {file} as gate.holdout, and this machine has elsewhere.jsonl"),
        (None, None, "and this machine has none"),
        ("{file}", "0" * 16, "has other texts than those that the version's training left out"),
    ],
)
def test_a_job_opens_only_the_holdout_of_the_ranks_own_settings_and_only_the_one_that_was_meant(
    tmp_path: Path, given: str | None, digest: str | None, said: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES)
    job = Job(
        id="1",
        source=TopicSource(topic="labels", ranges=(OffsetRange(0, 0, 1),), max_text_bytes=1024),
        recipe=Recipe(),
        checkpoints=tmp_path.as_uri(),
        out=tmp_path.as_uri(),
        split=UNKEYED.id,
        holdout=str(file),
        holdout_digest=digest,
    )
    with pytest.raises(DatasetError) as refused:
        run(
            job,
            None,
            Alone(),
            trusted=(),
            splits=Splits(),
            places=ANYWHERE,
            holdout=None if given is None else given.format(file=file),
        )
    assert said.format(file=file) in str(refused.value)


def test_what_is_wrong_with_a_file_of_the_holdout_quotes_no_text_of_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a secret text of somebody,sport\nanother,sport\n")
    with pytest.raises(DatasetError, match=r"gate\.holdout, .*rows\.csv, can't be read") as caught:
        read(str(file))
    assert "secret" not in str(caught.value)
