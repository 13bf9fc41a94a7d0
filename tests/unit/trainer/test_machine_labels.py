"""Labels of teachers in the trainer: whose are learnt from, what begins a training, and what stops nothing."""

from __future__ import annotations

import pytest

from headrace.kafka.interface import NotAuthorizedError, Outgoing, TopicPartition
from headrace.trainer.machine_labels import Teachers, chosen_teachers
from headrace.trainer.settings import TrainerSettings
from headrace_schemas.records import BarredText, LabelRule, OffsetRange, TrainingOrder, TrainingState
from headrace_schemas.topics import machine_label_key, text_key
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.trainer_cluster import NAME, TOPICS, story


def unused(caplog) -> list[str]:
    said = [record for record in caplog.records if getattr(record, "event", "") == "machine_labels.unused"]
    return [record.fields["why"] for record in said]


@story
async def test_the_snapshot_of_a_training_freezes_the_labels_of_the_teacher_too(world):
    world.add_machine_topic()
    await world.teach("x", "y", partition=1)
    await world.label("a", "b", "c")
    world.start()
    await world.trained()
    (job,) = world.launched
    frozen = (OffsetRange(0, 0, 0), OffsetRange(1, 0, 2))
    assert (job.source.machine.topic, job.source.machine.ranges) == (TOPICS.machine_labels, frozen)
    assert job.source.machine.teachers == {"encoder-1": 1.0}
    assert [training.machine_offsets for training in world.trainings()] == [frozen, frozen]
    assert (world.metric("machine_labels"), world.metric("teachers")) == (2.0, 1.0)


@story
async def test_a_cluster_without_the_topic_works_as_before_and_with_it_once_it_is_there(world):
    await world.label("a", "b", "c")
    world.start()
    await world.trained()
    assert world.launched[0].source.machine is None
    assert world.trainings()[0].machine_offsets == ()
    world.add_machine_topic()
    await world.teach("x")
    await world.until(lambda: world.metric("machine_labels"))
    await world.label("d", "e", "f")
    await world.trained(2)
    assert world.launched[1].source.machine.ranges[0] == OffsetRange(0, 0, 1)


def test_a_trainer_without_the_right_to_read_the_topic_trains_on_labels_of_people(monkeypatch, caplog):
    offsets = MemoryConsumer.beginning_offsets

    async def refuse(self, partitions):
        if any(one.topic == TOPICS.machine_labels for one in partitions):
            raise NotAuthorizedError("no right to Read")
        return await offsets(self, partitions)

    monkeypatch.setattr(MemoryConsumer, "beginning_offsets", refuse)

    @story
    async def play(world):
        world.add_machine_topic()
        await world.teach("x")
        await world.label("a", "b", "c")
        world.start()
        await world.trained()
        assert world.launched[0].source.machine is None

    play()
    assert "machine_labels.closed" in caplog.text


def test_versions_of_teachers_are_not_mixed_untold_and_that_is_said_by_name(caplog):
    @story
    async def play(world):
        world.add_machine_topic()
        await world.teach("x", "y")
        await world.teach("x", teacher="program-2")
        await world.label("a", "b", "c")
        world.start()
        (done,) = await world.trained()
        assert world.launched[0].source.machine is None
        assert "without labels of teachers: labels of 2 versions" in done.reason
        assert "encoder-1 (2), program-2 (1)" in done.reason
        await world.stop()
        await world.label("d", "e", "f")
        world.start(teachers=("encoder-1", "program-2"), sources={"machine": 0.5, "person": 2.0, "program-2": 1.0})
        await world.trained(2)
        assert world.launched[1].source.machine.teachers == {"encoder-1": 0.25, "program-2": 0.5}

    play()
    assert len(unused(caplog)) == 1


COUNTS = {"encoder-1": 3, "program-2": 1}


@pytest.mark.parametrize(
    ("counts", "settings", "weights", "why"),
    [
        ({}, {}, {}, None),
        ({"encoder-1": 3}, {}, {"encoder-1": 1.0}, None),
        (COUNTS, {}, {}, "mixed only where trainer.teachers names them"),
        (COUNTS, {"teachers": ("program-2", "gone-3")}, {"program-2": 1.0}, None),
        (COUNTS, {"teachers": ("gone-3",)}, {}, "names none of the teachers"),
        ({"encoder-1": 3}, {"sources": {"machine": 0.0}}, {}, None),
        (COUNTS, {"teachers": ("encoder-1", "program-2"), "sources": {"program-2": 0}}, {"encoder-1": 1.0}, None),
    ],
)
def test_which_teachers_are_learnt_from(counts, settings, weights, why):
    found = chosen_teachers(counts, TrainerSettings(**settings))
    assert found.weights == weights
    assert (found.why is None) == (why is None)
    assert why is None or why in found.why
    assert chosen_teachers(dict.fromkeys(map(str, range(99)), 1), TrainerSettings()).why.endswith("and 94 more")
    assert Teachers({}).why is None


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"machin": 1.0}, r"sources names 'machin', and origins are person, machine and versions of teachers"),
        ({"person": 0.0}, r"sources gives person 0, and its weight is above 0 to 1000"),
        ({"machine": -1.0}, r"sources gives machine -1, and its weight is from 0 to 1000"),
        ({"machine": float("nan")}, r"sources"),
    ],
)
def test_a_weight_that_means_nothing_is_refused(sources, said):
    with pytest.raises(ValueError, match=said):
        TrainerSettings(sources=sources)


@story
async def test_labels_of_teachers_begin_no_training_by_themselves(world):
    world.add_machine_topic()
    await world.teach(*(f"text {n}" for n in range(50)))
    world.start()
    await world.clock.sleep(300)
    assert world.launched == []
    await world.decree(TrainingOrder(name=NAME, ordered_at_ms=world.clock.now_ms(), reason="by hand"))
    await world.trained()
    assert world.launched[0].source.machine.ranges[0] == OffsetRange(0, 0, 50)


@story
async def test_labels_of_teachers_begin_a_training_where_a_setting_says_so(world):
    world.add_machine_topic()
    world.start(new_machine_labels=5)
    await world.teach(*(f"text {n}" for n in range(4)))
    await world.clock.sleep(60)
    assert world.launched == []
    await world.teach("text 4")
    (done,) = await world.trained()
    assert done.reason == "5 new labels of teachers"
    await world.teach(*(f"text {n}" for n in range(5)))
    await world.clock.sleep(60)
    assert len(world.launched) == 2, "the same texts, labelled again"


@story
async def test_a_trainer_that_is_to_train_once_does_so_on_labels_of_a_teacher_alone(world):
    world.add_machine_topic()
    await world.teach("x")
    ended = await world.start(once=True)
    assert ended.state is TrainingState.DONE


def test_rubbish_is_counted_and_said_and_stops_nothing(caplog):
    @story
    async def play(world):
        world.add_machine_topic()
        await world.producer.send_batch(
            TOPICS.machine_labels,
            0,
            [Outgoing(b"{", b"x"), Outgoing(b"{}", None), Outgoing(None, None), Outgoing(b"{", None)],
        )
        await world.teach("x", label="meh")
        await world.teach("y")
        await world.put_machine(BarredText(text_key=text_key("z"), barred_at_ms=0))
        await world.teach("z")
        await world.label("a", "b", "c")
        world.start(labels=("pos",))
        await world.trained()
        assert world.metric("machine_labels") == 1.0
        assert world.metric("machine_labels_refused_total", reason="bad-bytes") == 2.0
        assert world.metric("machine_labels_refused_total", reason="unknown-label") == 1.0
        assert world.metric("machine_labels_refused_total", reason="barred") == 1.0
        assert world.letters() == [], "the labels of people alone are dead-lettered"

    play()
    assert "machine_labels.refused" in caplog.text


@story
async def test_rules_of_labels_decide_what_a_teachers_label_counts_as(world):
    world.add_machine_topic()
    await world.teach("x", "y", label="economy")
    await world.teach("z", label="gossip")
    await world.teach("v", label="sport")
    await world.label("a", "b", "c")
    await world.teach("text  a", label="economy")
    world.start(labels=("neg", "pos", "economy", "sport"), new_labels=100, new_machine_labels=100, least_rows=1)
    await world.trained()
    assert (world.metric("machine_labels"), world.metric("machine_labels_refused_total", reason="unknown-label")) == (
        4.0,
        1.0,
    )
    await world.decree(LabelRule(name=NAME, label="sport", becomes=None, decided_at_ms=1))
    await world.until(lambda: world.metric("machine_labels") == 3.0)
    await world.decree(LabelRule(name=NAME, label="gossip", becomes="pos", decided_at_ms=2))
    await world.until(lambda: world.metric("machine_labels") == 4.0)


@story
async def test_labels_that_contradict_people_are_counted(world):
    world.add_machine_topic()
    await world.teach("Text  a", "elsewhere", label="neg")
    await world.teach("text b", label="pos")
    await world.label("a", "b", "c")
    world.start()
    await world.trained()
    assert world.metric("machine_disagreements") == 1.0
    assert world.letters() == []


@pytest.mark.parametrize("how", ["tombstone", "barred"])
def test_a_training_is_not_gone_on_with_over_an_erasure_of_what_a_teacher_labelled(how):
    @story
    async def play(world):
        world.add_machine_topic()
        world.train_s = 100.0
        await world.teach("x", "y")
        await world.label("a", "b", "c")
        world.start()
        await world.until(lambda: world.launched)
        world.kill()
        if how == "barred":
            await world.put_machine(BarredText(text_key=text_key("x"), barred_at_ms=0))
        else:
            key = machine_label_key("x", "encoder-1")
            await world.producer.send_batch(TOPICS.machine_labels, 0, [Outgoing(None, key)])
        world.start("t1")
        await world.trained()
        first, second = world.launched
        assert second.id != first.id
        assert second.source.machine.ranges[0].end == 3

    play()


@story
async def test_a_training_with_labels_of_a_teacher_is_gone_on_with(world):
    world.add_machine_topic()
    world.train_s = 100.0
    await world.teach("x", "y")
    await world.label("a", "b", "c")
    world.start()
    await world.until(lambda: world.launched)
    world.kill()
    await world.teach("z")
    world.start("t1")
    await world.trained()
    first, second = world.launched
    assert (second.id, second.source) == (first.id, first.source)


@story
async def test_a_topic_that_was_cut_is_read_again(world):
    world.add_machine_topic()
    await world.teach("x", "y")
    world.start()
    await world.until(lambda: world.metric("machine_labels") == 2)
    world.cluster.log(TopicPartition(TOPICS.machine_labels, 0)).truncate_before(1)
    await world.teach("z")
    await world.until(lambda: world.metric("machine_labels") == 3)
    await world.label("a", "b", "c")
    await world.trained()
