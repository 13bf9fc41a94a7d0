"""On which of its test rows a new version may be compared with another one."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from headrace.core.fields import Secret
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import LastRecord, Shard
from headrace.learning.data.split import OWN_TEST_FILE, UNKEYED, Part, Parts, Splits, Splitting
from headrace.learning.data.validation import text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.comparison import compared, fair_rows, known_rows
from headrace.learning.distributed.job import FileSource, Job, TopicSource
from headrace.learning.distributed.merge import merge_labels
from headrace.learning.distributed.rank import run
from headrace.learning.evaluate import answer
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.backends.interface import open_backend
from headrace_schemas.records import LabelledText, Lineage, ModelVersion, OffsetRange
from tests.support.exchange import run_ranks
from tests.support.networks import random_artifact
from tests.support.places import ANYWHERE

ROWS = 3_000
NOW, BEFORE = Secret("the key of now"), Secret("the key before")
SOURCE = TopicSource(topic="labels", ranges=(OffsetRange(0, 0, ROWS), OffsetRange(1, 0, ROWS)), max_text_bytes=1024)


def parts_of(splitting: Splitting, world: int = 1) -> list[Parts]:
    """What ranks agree on of a topic with two partitions."""
    records = [
        LastRecord(f"{n}".encode(), n % 2, n // 2, 0, LabelledText(text=f"text {n}", label="ab"[n % 3 == 0]), 0)
        for n in range(ROWS)
    ]
    shards = [
        Shard(topic="labels", records=tuple(one for one in records if one.partition % world == rank), dropped={})
        for rank in range(world)
    ]
    return run_ranks(world, lambda exchange: merge_labels(shards[exchange.rank], exchange, splitting))


def version_of(split: str | None, *, source: str = "labels", offsets: tuple[OffsetRange, ...] = ()) -> ModelVersion:
    return ModelVersion(
        name="m",
        version="v1",
        uri="memory://v1",
        sha256="0",
        size=1,
        labels=("a", "b"),
        created_at_ms=0,
        lineage=Lineage(source=source, digest="d", rows=1, split=split, offsets=offsets),
    )


@pytest.mark.parametrize("splits", [Splits(NOW, BEFORE), Splits(None, BEFORE)])
def test_a_version_of_the_same_split_was_trained_on_no_test_row(splits: Splits) -> None:
    [parts] = parts_of(splits.current)
    assert fair_rows(version_of(parts.splitting), parts, splits) == [True] * len(parts.split.test)


@pytest.mark.parametrize("other", [Splitting(BEFORE), UNKEYED])
def test_of_another_split_only_those_rows_count_that_it_calls_test_too(other: Splitting) -> None:
    [parts], [others] = parts_of(Splitting(NOW)), parts_of(other)
    fair = fair_rows(version_of(other.id), parts, Splits(NOW, BEFORE))
    counted = {text for text, is_fair in zip(parts.split.test.texts, fair or (), strict=True) if is_fair}
    assert counted == set(parts.split.test.texts) & set(others.split.test.texts)
    assert 5 < len(counted) < 0.2 * len(parts.split.test)
    # Every row that does not count trained or chose the other version.
    assert not counted & set((others.split.train + others.split.valid).texts)


def few_rows(texts: list[str]) -> Parts:
    """The rows of a topic with two labels of many rows, and ``texts`` with the label c."""
    many = [LabelledText(text=f"text {n}", label="ab"[n % 2]) for n in range(300)]
    contents = [*many, *(LabelledText(text=text, label="c") for text in texts)]
    records = tuple(LastRecord(f"{n}".encode(), 0, n, 0, content, 0) for n, content in enumerate(contents))
    return merge_labels(Shard(topic="labels", records=records, dropped={}), Alone(), UNKEYED)


def texts_in(part: Part, count: int) -> list[str]:
    texts = (f"rare {n}" for n in itertools.count())
    return list(itertools.islice((one for one in texts if UNKEYED.part_of(*text_keys([one])) is part), count))


def fair_texts(version: ModelVersion, parts: Parts) -> set[str]:
    fair = fair_rows(version, parts, Splits())
    assert fair is not None
    return {text for text, is_fair in zip(parts.split.test.texts, fair, strict=True) if is_fair}


def test_a_row_that_was_moved_into_the_test_does_not_count_as_the_version_before_may_have_learnt_it() -> None:
    parts = few_rows(texts_in(Part.TRAIN, 3))
    moved = {text for text, label in zip(parts.split.test.texts, parts.split.test.labels, strict=True) if label == "c"}
    assert len(moved) == 1
    assert parts.split.moved.borrowed == ("c",)
    assert fair_texts(version_of(UNKEYED.id), parts) == set(parts.split.test.texts) - moved


def test_a_test_row_that_was_lent_to_the_training_of_the_version_before_does_not_count() -> None:
    lent, later = texts_in(Part.TEST, 3), texts_in(Part.TRAIN, 2) + texts_in(Part.VALID, 1)
    before, parts = few_rows(lent), few_rows(lent + later)
    version = version_of(UNKEYED.id)
    assert version.lineage is not None
    version = msgspec.structs.replace(
        version, lineage=msgspec.structs.replace(version.lineage, lent=before.split.moved.lent)
    )
    assert before.split.moved.lent == ("c",)
    assert set(lent) <= set(parts.split.test.texts)
    assert set(before.split.train.texts) & set(lent)
    assert fair_texts(version, parts) == set(parts.split.test.texts) - set(lent)


def test_a_version_from_before_there_were_keys_was_divided_without_one() -> None:
    [parts] = parts_of(UNKEYED)
    assert fair_rows(version_of(None), parts, Splits()) == [True] * len(parts.split.test)
    unknown = msgspec.structs.replace(version_of(None), lineage=None)
    assert fair_rows(unknown, parts, Splits()) == [True] * len(parts.split.test)


@pytest.mark.parametrize("split", [Splitting(BEFORE).id, OWN_TEST_FILE])
def test_nobody_can_tell_what_a_split_that_is_not_known_here_calls_test(split: str) -> None:
    [parts] = parts_of(Splitting(NOW))
    assert fair_rows(version_of(split), parts, Splits(NOW)) is None


def test_the_rows_that_a_snapshot_held_are_those_in_its_offsets() -> None:
    [parts] = parts_of(UNKEYED)
    version = version_of(UNKEYED.id, offsets=(OffsetRange(0, 0, 500), OffsetRange(1, 0, 700)))
    numbers = [int(text.split()[1]) for text in parts.split.test.texts]
    assert known_rows(version, parts, SOURCE) == [n // 2 < (500, 700)[n % 2] for n in numbers]
    for elsewhere in (version_of(None), version_of(None, source="others", offsets=version.lineage.offsets)):
        assert known_rows(elsewhere, parts, SOURCE) is None
    assert known_rows(version, parts, FileSource(data="labels")) is None


def test_ranks_together_tell_what_one_would() -> None:
    artifact = random_artifact(1)
    backend, splits = open_backend("cpu", artifact), Splits(NOW, BEFORE)
    version = version_of(Splitting(BEFORE).id, offsets=(OffsetRange(0, 0, 500), OffsetRange(1, 0, 700)))
    [alone], ranks = parts_of(splits.current), parts_of(splits.current, world=2)
    one = compared(version, backend, alone, SOURCE, splits, Alone())
    both = run_ranks(2, lambda exchange: compared(version, backend, ranks[exchange.rank], SOURCE, splits, exchange))
    assert one.answers == tuple(answer(backend, alone.split.test.texts))
    for found in both:
        assert sorted(zip(found.answers, found.fair, found.known, strict=True)) == sorted(
            zip(one.answers, one.fair, one.known, strict=True)
        )


def test_a_rank_whose_key_is_another_ends_the_training_before_it_reads() -> None:
    job = Job(
        id="1", source=SOURCE, recipe=Recipe(), checkpoints="memory://c", out="memory://o", split=Splitting(NOW).id
    )
    with pytest.raises(DatasetError, match=r"all machines and processes of a training the same trainer\.split_key"):
        run(job, None, Alone(), trusted=(), splits=Splits(BEFORE), places=ANYWHERE)


def test_answers_of_a_version_of_before_are_compared_as_the_rules_say() -> None:
    artifact = random_artifact(1)
    backend, splits = open_backend("cpu", artifact), Splits(NOW, BEFORE)
    [parts] = parts_of(splits.current)
    given = answer(backend, parts.split.test.texts)
    old = given[0]
    ruled = msgspec.structs.replace(SOURCE, rules={old: "a new name"})
    held = Rows(parts.split.test.texts[:5], parts.split.test.labels[:5])
    found = compared(version_of(Splitting(BEFORE).id), backend, parts, ruled, splits, Alone(), held)
    assert found.answers == tuple("a new name" if label == old else label for label in given)
    assert found.holdout_answers == found.answers[:5]
