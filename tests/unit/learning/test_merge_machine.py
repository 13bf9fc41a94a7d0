"""Labels of teachers beside those of people: who outranks whom, on however many ranks, and what an erasure reaches."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.files import DatasetError
from headrace.learning.data.labels import LastRecord, Shard
from headrace.learning.data.machine_labels import LastMachineRecord, MachineShard, machine_label_by_rules, scores_of
from headrace.learning.data.split import UNKEYED, Part, Parts
from headrace.learning.data.validation import text_keys
from headrace.learning.distributed.job import MachineSource, TopicSource
from headrace.learning.distributed.merge import merge_labels
from headrace.learning.distributed.merge_machine import merge_snapshot
from headrace_schemas.records import BarredText, LabelledText, MachineLabel, MachineLabelsRecord, Score
from headrace_schemas.topics import machine_labels_key, text_key
from tests.support.exchange import run_ranks

PARTITIONS = 3
SOURCE = MachineSource(topic="m", ranges=(), teachers={"encoder-1": 1.0})

Human = list[tuple[str, LabelledText | None]]
Machine = list[tuple[bytes, MachineLabelsRecord | str | None]]

GROUND: Human = [(f"g{n}", LabelledText(text=f"ground {n}", label="ab"[n % 2])) for n in range(60)]


def said(text: str, label: str = "a", teacher: str = "encoder-1") -> tuple[bytes, MachineLabel]:
    made = MachineLabel(text=text, teacher=teacher, label=label, labelled_at_ms=0)
    return machine_labels_key(made), made


def barred(key: str) -> tuple[bytes, BarredText]:
    made = BarredText(text_key=key, barred_at_ms=0)
    return machine_labels_key(made), made


def human_shards(log: Human, world: int) -> list[Shard]:
    last: dict[str, LastRecord] = {}
    for offset, (name, content) in enumerate(log):
        last[name] = LastRecord(name.encode(), len(name) % PARTITIONS, offset, offset, content, 0)
    ordered = sorted(last.values(), key=lambda one: (one.partition, one.offset))
    return [
        Shard(topic="t", records=tuple(one for one in ordered if one.partition % world == rank), dropped={})
        for rank in range(world)
    ]


def machine_shards(log: Machine, world: int) -> list[MachineShard]:
    last: dict[bytes, LastMachineRecord] = {}
    for offset, (key, content) in enumerate(log):
        last[key] = LastMachineRecord(key, sum(key) % PARTITIONS, offset, offset, content)
    ordered = sorted(last.values(), key=lambda one: (one.partition, one.offset))
    return [
        MachineShard(topic="m", records=tuple(one for one in ordered if one.partition % world == rank), dropped={})
        for rank in range(world)
    ]


def merged(human: Human, machine: Machine, world: int = 1, **given_: object) -> list[Parts]:
    mine, theirs = human_shards(human, world), machine_shards(machine, world)
    source = TopicSource(
        topic="t",
        ranges=(),
        max_text_bytes=1000,
        labels=given_.pop("labels", ()),
        machine=msgspec.structs.replace(SOURCE, **given_.pop("source", {})),
    )
    return run_ranks(
        world,
        lambda exchange: merge_snapshot(
            mine[exchange.rank], theirs[exchange.rank], source, exchange, UNKEYED, **given_
        ),
    )


def taught_rows(ranks: list[Parts]) -> Counter[tuple[str, str]]:
    return Counter(row for parts in ranks for row in zip(parts.taught.texts, parts.taught.rows().labels, strict=True))


def training(count: int, stem: str = "machine") -> list[str]:
    """Texts that the split lets train."""
    texts = [f"{stem} {number}" for number in range(4 * count)]
    keys = text_keys(texts)
    return [text for text, key in zip(texts, keys, strict=True) if UNKEYED.part_of(key) is Part.TRAIN][:count]


TEXTS = st.sampled_from(["ground 7", "Ground  7", *training(3), training(3)[0].upper(), "machine 4", " "])
LABELS = st.sampled_from("abc")
HUMANS = st.tuples(
    st.sampled_from("uvw"), st.one_of(st.none(), st.builds(lambda t, n: LabelledText(text=t, label=n), TEXTS, LABELS))
)
MACHINES = st.one_of(
    st.builds(said, TEXTS, LABELS, st.sampled_from(["encoder-1", "program-2", "encoder-3"])),
    st.builds(lambda text: (said(text)[0], None), TEXTS),
    st.builds(lambda text: (said(text)[0], "bad-bytes"), TEXTS),
    st.builds(lambda text: barred(text_key(text)), TEXTS),
    st.builds(lambda text: (barred(text_key(text))[0], None), TEXTS),
)


def expected(human: Human, machine: Machine, teachers: set[str]) -> set[tuple[bytes, str]]:
    """Words and teacher of each row, by the rules as they are written down."""
    last_human, last = dict(human), dict(machine)
    people = set(text_keys([one.text for one in last_human.values() if one is not None]))
    erased = {one.text_key for one in last.values() if isinstance(one, BarredText)}
    rows = set()
    for one in last.values():
        if not isinstance(one, MachineLabel) or one.teacher not in teachers or text_key(one.text) in erased:
            continue
        (key,) = text_keys([one.text])
        if key and key not in people and UNKEYED.part_of(key) is Part.TRAIN:
            rows.add((key, one.teacher))
    return rows


@settings(deadline=None)
@given(
    st.lists(HUMANS, max_size=8),
    st.lists(MACHINES, max_size=25),
    st.integers(1, 4),
    st.sets(st.sampled_from(["encoder-1", "program-2"]), min_size=1),
)
def test_people_outrank_teachers_whoever_came_later_and_what_is_barred_trains_never(human, machine, world, teachers):
    source = {"teachers": dict.fromkeys(sorted(teachers), 1.0)}
    ranks = merged(GROUND + human, machine, world, source=source)
    alone = merged(GROUND + human, machine, source=source)

    want = expected(GROUND + human, machine, teachers)
    (single,) = alone
    assert sum(len(parts.taught) for parts in ranks) == len(want) == single.machine_rows
    assert set(text_keys(single.taught.texts)) == {key for key, _ in want}
    assert taught_rows(ranks) == taught_rows(alone)
    for parts in ranks:
        assert (parts.digest, parts.labels, parts.machine_rows) == (single.digest, single.labels, single.machine_rows)
        assert (parts.dropped, parts.disagreements) == (single.dropped, single.disagreements)
    judged = single.split.valid.texts + single.split.test.texts
    assert not set(text_keys(single.taught.texts)) & set(text_keys(judged)), "validation and test are people's alone"


def test_a_topic_without_a_usable_label_changes_nothing():
    (plain,) = run_ranks(1, lambda exchange: merge_labels(human_shards(GROUND, 1)[0], exchange, UNKEYED))
    (beside,) = merged(GROUND, [said("ground 7"), (b"x", "bad-bytes")])

    assert (beside.split, beside.digest, beside.labels, beside.rows) == (
        plain.split,
        plain.digest,
        plain.labels,
        plain.rows,
    )
    assert beside.dropped == {**plain.dropped, "machine-bad-bytes": 1, "machine-human": 1}


def test_who_contradicts_people_is_counted_and_does_not_train():
    texts = training(2)
    (parts,) = merged(GROUND, [said("ground 7", "a"), said("GROUND 8", "a"), *(said(text) for text in texts)])

    assert parts.disagreements == 1, "ground 7 is b"
    assert parts.dropped["machine-human"] == 2
    assert sorted(parts.taught.texts) == sorted(texts)


def test_a_text_that_people_disagree_on_is_theirs_too():
    (text,) = training(1)
    torn = [("u", LabelledText(text=text, label="a")), ("v", LabelledText(text=text, label="b"))]
    (parts,) = merged(GROUND + torn, [said(text)])

    assert not len(parts.taught)
    assert (parts.dropped["machine-human"], parts.disagreements) == (1, 0)


@pytest.mark.parametrize("of", [text_key, lambda text: text_keys([text])[0][:16].hex()])
def test_an_erased_text_is_in_no_part_of_a_training_though_a_teacher_labels_it_again(of):
    text, other = training(2)
    before = merged(GROUND, [said(text), said(other)])
    after = merged(GROUND, [said(text), (said(text)[0], None), barred(of(text)), said(text), said(other)])

    assert taught_rows(before) == {(text, "a"): 1, (other, "a"): 1}
    assert taught_rows(after) == {(other, "a"): 1}
    assert after[0].dropped["machine-barred"] == 1
    assert after[0].digest == merged(GROUND, [said(other)])[0].digest


def test_a_text_that_is_held_out_trains_by_no_teacher():
    text, other = training(2)
    (parts,) = merged(GROUND, [said(text), said(other)], held_out=frozenset(text_keys([text.upper()])))

    assert parts.taught.texts == (other,)


def test_each_teacher_that_is_allowed_has_one_row_a_text_with_its_weight():
    (text,) = training(1)
    log = [said(text), said(text.upper()), said(text, "b", "program-2"), said(text, "b", "encoder-9")]
    (parts,) = merged(GROUND, log, source={"teachers": {"encoder-1": 0.5, "program-2": 1.0}})

    assert parts.machine_rows == 2
    assert sorted(zip(parts.taught.rows().labels, parts.taught.weights.tolist(), strict=True)) == [
        ("a", 0.5),
        ("b", 1.0),
    ]
    assert parts.taught.origins == ("encoder-1", "program-2")
    assert (parts.dropped["machine-other-teacher"], parts.dropped["machine-duplicate"]) == (1, 1)


def test_without_a_label_of_a_person_the_rows_are_divided_and_the_version_is_unproven():
    log = [said(f"machine {n}", "ab"[n % 2]) for n in range(200)]
    for world in (1, 2):
        ranks = merged([], log, world)
        assert all(parts.unproven for parts in ranks)
        texts = [
            text for parts in ranks for of in (parts.taught, parts.split.valid, parts.split.test) for text in of.texts
        ]
        assert sorted(texts) == sorted(f"machine {n}" for n in range(200))
        for parts in ranks:
            assert all(UNKEYED.part_of(key) is Part.TEST for key in text_keys(parts.split.test.texts))
            assert parts.digest == merged([], log)[0].digest
            assert parts.rows == 0
    with pytest.raises(DatasetError, match="t holds no label of a person, and 1 machine-labelled texts"):
        merged([], log[:1])
    with pytest.raises(DatasetError, match="t: 0 clean rows leave none for train"):
        merged([], [])


def test_few_labels_of_people_need_none_to_validate_on_beside_those_of_a_teacher():
    few = [("u", LabelledText(text="ground 1", label="a")), ("v", LabelledText(text="ground 2", label="a"))]
    (parts,) = merged(few, [said(text, "b") for text in training(10)])

    assert (len(parts.split.train), len(parts.split.valid), len(parts.split.test)) == (1, 0, 1)
    assert parts.machine_rows == 10
    assert not parts.unproven


def test_more_classes_than_are_allowed_are_refused_before_there_is_a_cell_for_each():
    with pytest.raises(DatasetError, match=r"there are 22 labels, and trainer\.max_labels allows 10"):
        merged(GROUND, [said(text, f"class {n}") for n, text in enumerate(training(20))], most_labels=10)


def label(scores: dict[str, float], name: str | None = "a") -> MachineLabel:
    given_ = tuple(Score(of, share) for of, share in scores.items())
    return MachineLabel(text="x", teacher="encoder-1", labelled_at_ms=0, label=name, scores=given_)


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        (label({}), {"a": 1.0}),
        (label({"a": 0.375, "b": 0.125}), {"a": 0.75, "b": 0.25}),
        (label({"a ": 0.5, "a": 0.25, "c": 0.25}), {"a": 1.0}),
        (label({"b": 0.6, "a": 0.4}), "bad-scores"),
        (label({"a": float("nan")}), "bad-scores"),
        (label({"a": -1.0}), "bad-scores"),
        (label({"a": 1.0, "b": 1.0}), "bad-scores"),
        (label({"a": 0.0}), "bad-scores"),
        (label({"b": 1.0}), "bad-scores"),
        (label({}, "c"), "unknown-label"),
        (label({}, " "), "empty-label"),
        (label({}, None), "failed"),
    ],
)
def test_scores_are_shares_of_classes_that_may_be_learnt_or_nothing(given_, found):
    assert scores_of(given_, ("a", "b")) == found


def test_a_teachers_classes_are_as_the_rules_say_and_shares_of_merged_ones_are_added() -> None:
    said = MachineLabel(
        text="t",
        teacher="e-1",
        labelled_at_ms=1,
        label="a",
        scores=(Score(label="a", score=0.4), Score(label="b", score=0.35), Score(label="c", score=0.25)),
    )
    merged = machine_label_by_rules(said, {"b": "x", "c": "x"})
    assert merged is not None
    assert merged.label == "x"
    assert scores_of(merged, ()) == {"a": pytest.approx(0.4), "x": pytest.approx(0.6)}
    assert machine_label_by_rules(said, {"a": None}) is None
    left = machine_label_by_rules(said, {"c": None})
    assert left is not None
    assert scores_of(left, ()) == {"a": pytest.approx(0.4 / 0.75), "b": pytest.approx(0.35 / 0.75)}
    assert machine_label_by_rules(said, {}) is said
