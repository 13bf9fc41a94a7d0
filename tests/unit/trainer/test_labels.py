"""Labels as the trainer reads them: refused ones go to the dead letters, once, and nothing holds it up."""

from __future__ import annotations

import pytest

from headrace.kafka.dead_letters import DeadLetterSettings, keeping
from headrace.kafka.interface import BrokerUnavailableError, TopicPartition
from headrace.learning.data.labels import read_partitions
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText, OffsetRange
from tests.support.trainer_cluster import TOPICS, TrainerCluster, story

LABELS = TopicPartition(TOPICS.labels, 0)


async def read(world: TrainerCluster, count: int) -> None:
    await world.until(lambda: (world.metric("labels_read_total") or 0) >= count)


def encoded(text: str, label: str) -> bytes:
    return encode_label(LabelledText(text=text, label=label))


@pytest.mark.parametrize(
    ("id_", "value", "code"),
    [
        ("x", b"{", "bad-bytes"),
        ("x", b'{"text": "no label"}', "missing-field"),
        (None, encoded("no id", "pos"), "bad-key"),
        (None, None, "bad-key"),
        ("x", encoded("meh", "meh"), "unknown-label"),
        ("x", encoded("nothing said", " "), "empty-label"),
        ("x", encoded(" \n", "pos"), "empty-text"),
        ("x", encoded("long " * 100, "pos"), "text-too-large"),
        ("x", encoded("Text  a", "neg"), "conflicting-label"),
    ],
)
def test_a_label_that_cannot_be_used_goes_to_the_dead_letters_as_it_was_with_the_reason(id_, value, code):
    @story
    async def play(world):
        await world.label("a")
        await world.put(id_, value)
        await world.label("b")
        world.start(labels=("pos", "neg"), max_text_bytes=100, least_rows=100)
        await read(world, 3)
        await world.until(world.letters)
        (letter,) = world.letters()
        assert (letter.topic, letter.partition, letter.offset, letter.stage) == (TOPICS.labels, 0, 1, "label")
        assert (letter.error, letter.value, letter.key) == (code, value, None if id_ is None else id_.encode())
        assert letter.message.startswith("labels[0]@1: ")
        assert world.metric("labels_refused_total", reason=code) == 1.0

    play()


@story
async def test_a_trainer_keeps_of_a_refused_label_what_its_settings_say(world):
    world.keep = keeping(DeadLetterSettings(keep="nothing"))
    await world.label("a")
    await world.put("x", encoded(" \n", "pos"))
    world.start(least_rows=100)
    await world.until(world.letters)
    (letter,) = world.letters()
    assert (letter.topic, letter.offset, letter.error) == (TOPICS.labels, 1, "empty-text")
    assert (letter.value, letter.key, letter.headers) == (None, None, ())


@story
async def test_a_trainer_that_starts_again_reads_all_labels_and_repeats_no_dead_letter(world):
    await world.label("a", "b")
    await world.put("c", b"{")
    world.start(least_rows=100)
    await world.until(world.letters)
    await world.stop()
    await world.put("d", b"{")
    world.start(least_rows=100)
    await world.until(lambda: len(world.letters()) == 2)
    assert [letter.offset for letter in world.letters()] == [2, 3]
    assert world.metric("labels") == 2.0


@story
async def test_what_was_labelled_since_the_last_snapshot_is_counted_again_after_a_restart(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained()
    await world.label("d")
    await world.put("a", None)
    await world.stop()
    world.start()
    await read(world, 5)
    await world.until(lambda: world.trainers["t0"].unready is None)
    assert world.metric("label_changes", change="new") == 1.0
    assert world.metric("label_changes", change="erased") == 1.0
    assert world.metric("labels") == 3.0


@story
async def test_partitions_added_later_are_read(world):
    world.start()
    await world.until(lambda: world.trainers["t0"].unready is None)
    await world.cluster.admin().add_partitions(TOPICS.labels, 3)
    await world.label("a", "b", "c", partition=2)
    (done,) = await world.trained()
    assert done.offsets[2] == OffsetRange(2, 0, 3)


@story
async def test_offsets_without_a_record_are_stepped_over(world):
    await world.label("a", "b", "c")
    world.cluster.log(LABELS).remove(1)
    world.cluster.log(LABELS).add_gap()
    world.start(least_rows=2)
    (done,) = await world.trained()
    assert done.offsets[0] == OffsetRange(0, 0, 4)


@story
async def test_labels_that_retention_took_before_they_were_read_are_read_anew_from_what_is_left(world):
    await world.label("a", "b", "c", "d")
    world.start(least_rows=3)
    await world.until(lambda: world.trainers["t0"].unready is None)
    world.cluster.recreate(TOPICS.labels)
    world.runs["t0"].cancel()
    world.runs.clear()
    world.start("t1", least_rows=2)
    await world.label("e", "f")
    (done,) = await world.trained()
    assert done.offsets[0] == OffsetRange(0, 0, 2)


@story
async def test_a_broker_that_is_away_for_a_while_ends_neither_the_trainer_nor_its_training(world):
    away = False

    class Faults:
        async def point(self, member: str, name: str) -> None:
            if away and member != "local":
                raise BrokerUnavailableError(f"away at {name}")

    world.cluster.faults = Faults()
    world.start()
    world.train_s = 30.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    away = True
    await world.clock.sleep(4)
    away = False
    await world.trained()
    assert len(world.launched) == 1


@story
async def test_a_label_that_is_not_allowed_is_left_out_by_the_ranks_too(world):
    await world.label("a", "b", "c")
    await world.label("d", label="meh", partition=1)
    world.start(labels=("pos", "neg"))
    await world.trained()
    (job,) = world.launched
    shard = await read_partitions(world.cluster, job.source, [0, 1])
    left_out = {record.id: record.content for record in shard.records if isinstance(record.content, str)}
    assert left_out == {b"d": "unknown-label"}
