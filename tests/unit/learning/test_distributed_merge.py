from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.fields import Secret
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.labels import LastRecord, Shard
from headrace.learning.data.split import UNKEYED, Moved, Part, Parts, Split, Splitting, split
from headrace.learning.data.validation import clean, text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.merge import merge_labels
from headrace_schemas.records import LabelledText
from tests.support.exchange import run_ranks

PARTITIONS = 3

# A log is a list of (id, partition, timestamp, content); its order is the order of offsets in every partition.
Log = list[tuple[str, int, int, LabelledText | str | None]]


def labelled(text: str, label: str = "a") -> LabelledText:
    return LabelledText(text=text, label=label)


# Enough for each part to have rows, whatever is added.
GROUND: Log = [(f"g{n}", n % PARTITIONS, n, labelled(f"ground {n}", "ab"[n % 2])) for n in range(60)]

CONTENTS = st.one_of(
    st.none(),
    st.just("bad-bytes"),
    st.builds(
        labelled,
        st.sampled_from(["one", "One ", "two", "three", "four", "five", "ground 7", " "]),
        st.sampled_from(["a", "b", "c ", "d", " "]),
    ),
)
RECORDS = st.tuples(st.sampled_from("uvwxyz"), st.integers(0, PARTITIONS - 1), st.integers(0, 5), CONTENTS)
LOGS = st.lists(RECORDS, max_size=40)


def shards(log: Log, world: int) -> list[Shard]:
    """What the ranks of ``world`` read of ``log``."""
    last: dict[tuple[int, str], LastRecord] = {}
    for offset, (name, partition, time, content) in enumerate(log):
        before = last.get((partition, name))
        earlier = 0 if before is None else before.before + (before.content is not None)
        last[partition, name] = LastRecord(name.encode(), partition, offset, time, content, earlier)
    ordered = sorted(last.values(), key=lambda one: (one.partition, one.offset))
    return [
        Shard(topic="t", records=tuple(one for one in ordered if one.partition % world == rank), dropped={"bad-key": 1})
        for rank in range(world)
    ]


def agreed(log: Log, world: int = 1, splitting: Splitting = UNKEYED) -> list[Parts]:
    ranks = shards(log, world)
    return run_ranks(world, lambda exchange: merge_labels(ranks[exchange.rank], exchange, splitting))


def rows_of(parts: Parts) -> dict[Part, list[tuple[str, str]]]:
    return {part: list(zip(rows.texts, rows.labels, strict=True)) for part, rows in parts_of(parts.split).items()}


def parts_of(split: Split) -> dict[Part, Rows]:
    return {part: getattr(split, part.value) for part in Part}


def expected(
    log: Log, splitting: Splitting = UNKEYED
) -> tuple[dict[Part, Counter[tuple[str, str]]], Counter[str], Moved, tuple[str, ...]]:
    """The rows, what was left out, whose rows were moved and what is not learnt, as of a file with the same rows."""
    in_partition: dict[tuple[str, int], tuple[int, int, int, LabelledText | str | None]] = {}
    for offset, (name, partition, time, content) in enumerate(log):
        in_partition[name, partition] = (time, partition, offset, content)
    last: dict[str, tuple[int, int, int, LabelledText | str | None]] = {}
    for (name, _), record in in_partition.items():
        last[name] = max(last.get(name, record), record, key=lambda one: one[:3])
    labels = Counter(name for name, _, _, content in log if content is not None)
    alive = [name for name, (*_, content) in last.items() if content is not None]
    dropped = Counter(
        erased=len(last) - len(alive),
        replaced=sum(labels[name] - 1 for name in alive),
        **Counter(content for *_, content in last.values() if isinstance(content, str)),
    )
    ordered = [content for *_, content in sorted(last.values(), key=lambda one: one[1:3])]
    kept = [content for content in ordered if isinstance(content, LabelledText)]
    cleaned = clean(Rows(tuple(one.text for one in kept), tuple(one.label for one in kept)))
    dropped.update(empty=cleaned.empty, duplicate=cleaned.duplicate, conflicting=cleaned.conflicting)
    divided = split(cleaned, splitting=splitting)
    rows = {part: Counter(zip(of.texts, of.labels, strict=True)) for part, of in parts_of(divided).items()}
    learnt = {label for part in (Part.TRAIN, Part.VALID) for _, label in rows[part]}
    unlearnt = {label_name(one.label) for one in kept} - learnt - {""}
    return rows, +dropped, divided.moved, tuple(sorted(unlearnt))


@settings(deadline=None)
@given(LOGS, st.integers(1, 4))
def test_any_number_of_ranks_agrees_on_the_rows_that_one_reader_would_take(added, world):
    log = GROUND + added
    ranks = agreed(log, world)
    rows, dropped, moved, unlearnt = expected(log)

    for part in Part:
        assert sum((Counter(rows_of(rank)[part]) for rank in ranks), Counter()) == rows[part]
    for rank in ranks:
        assert (rank.split.moved, rank.unlearnt) == (moved, unlearnt)
        assert rank.rows == (rows[Part.TRAIN] + rows[Part.VALID]).total()
        assert rank.labels == tuple(sorted({label for _, label in rows[Part.TRAIN] + rows[Part.VALID]}))
        assert Counter(rank.dropped) == dropped + Counter({"bad-key": world})
        assert rank.digest == agreed(log)[0].digest


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9), LOGS, st.integers(1, 4))
def test_the_key_of_the_split_decides_for_all_ranks_where_a_text_goes_and_changes_nothing_else(number, added, world):
    splitting = Splitting(Secret(f"the key number {number}"))
    ranks, unkeyed = agreed(GROUND + added, world, splitting), agreed(GROUND + added, world)

    assert sorted(row for rank in ranks for row in all_rows(rank)) == sorted(
        row for rank in unkeyed for row in all_rows(rank)
    )
    assert {rank.digest for rank in ranks} == {rank.digest for rank in unkeyed}
    rows, _, moved, _ = expected(GROUND + added, splitting)
    for part in Part:
        assert sum((Counter(rows_of(rank)[part]) for rank in ranks), Counter()) == rows[part]
    for rank in ranks:
        assert (rank.splitting, rank.split.moved) == (splitting.id, moved)


@settings(deadline=None)
@given(LOGS, st.data())
def test_compaction_changes_neither_the_rows_nor_the_digest(added, data):
    log = GROUND + added
    latest = {(name, partition): place for place, (name, partition, *_) in enumerate(log)}
    superseded = [place for place, (name, partition, *_) in enumerate(log) if latest[name, partition] != place]
    removed = data.draw(st.sets(st.sampled_from(superseded))) if superseded else set()
    whole = agreed(log)[0]
    compacted = agreed([record for place, record in enumerate(log) if place not in removed])[0]

    assert (compacted.split, compacted.digest) == (whole.split, whole.digest)


def all_rows(parts: Parts) -> list[tuple[str, str]]:
    return [row for rows in rows_of(parts).values() for row in rows]


def test_an_erased_text_is_in_no_part_and_is_counted():
    labelling, erasure = ("me", 0, 100, labelled("my own words")), ("me", 0, 101, None)
    [before] = agreed([*GROUND, labelling])
    [after] = agreed([*GROUND, labelling, erasure])

    assert ("my own words", "a") in all_rows(before)
    assert sorted(all_rows(after)) == sorted(all_rows(agreed(GROUND)[0]))
    assert (after.dropped["erased"], after.digest) == (1, agreed(GROUND)[0].digest)


def test_a_text_that_is_held_out_is_in_no_part_whatever_its_id_and_is_counted():
    held = text_keys(["Ground  7", "ground 8", "not there"])
    shard = shards(GROUND, 1)[0]
    [parts] = [merge_labels(shard, Alone(), UNKEYED, held_out=held)]
    without = [row for row in all_rows(agreed(GROUND)[0]) if row[0] not in ("ground 7", "ground 8")]
    assert sorted(all_rows(parts)) == sorted(without)
    assert parts.dropped["holdout"] == 2


def test_an_id_that_moved_to_an_added_partition_has_the_label_of_the_later_record_on_every_rank():
    old, new = ("me", 0, 100, labelled("my words", "a")), ("me", 2, 101, labelled("my words", "b"))
    ranks = agreed([*GROUND, new, old], world=2)

    assert [row for rank in ranks for row in all_rows(rank) if row[0] == "my words"] == [("my words", "b")]
    assert ranks[0].dropped["replaced"] == 1


def test_another_label_or_text_of_an_id_makes_another_digest():
    logs = [[*GROUND, ("me", 0, 100, labelled(*content))] for content in (("x", "a"), ("x", "b"), ("y", "a"))]

    assert len({agreed(log)[0].digest for log in logs}) == 3


def test_a_label_whose_rows_are_all_held_out_or_contradict_each_other_is_named_by_every_rank():
    held, other = ("h", 0, 100, labelled("held", "c")), ("i", 1, 100, labelled("twice", "d"))
    ranks = shards([*GROUND, held, other, ("j", 2, 100, labelled("twice", "e"))], 2)
    keys = frozenset(text_keys(["held"]))
    parts = run_ranks(2, lambda exchange: merge_labels(ranks[exchange.rank], exchange, UNKEYED, held_out=keys))

    assert [one.unlearnt for one in parts] == [("c", "d", "e")] * 2
    assert parts[0].labels == ("a", "b")


def test_a_part_without_a_row_on_any_rank_is_an_error_that_names_the_topic():
    with pytest.raises(DatasetError, match=r"t: 0 clean rows leave none for train and valid and test"):
        agreed([("x", 0, 0, None)], world=2)
    # A rank without a row is none.
    assert agreed([(name, 0, time, content) for name, _, time, content in GROUND], world=2)[1].split.train == Rows(
        (), ()
    )
