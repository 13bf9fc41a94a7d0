"""The trainer over the in-memory twin: what it trains, when, on what, and what becomes of the versions."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.commands.models.train import OrderLateError, answer_to
from headrace.core.errors import UserError
from headrace.kafka.interface import BrokerUnavailableError, NotAuthorizedError, Outgoing, TopicSpec
from headrace.registry.compacted_topics import ModelsLog
from headrace_schemas.codec import encode_result
from headrace_schemas.records import (
    ClassifyResult,
    LabelRule,
    ModelAlias,
    ModelVersion,
    OffsetRange,
    Status,
    Training,
    TrainingOrder,
    TrainingState,
    Verdict,
)
from tests.support.trainer_cluster import NAME, TOPICS, story


@story
async def test_labels_become_a_champion_and_the_snapshot_is_published_before_the_training(world):
    world.start()
    await world.label("a", "b", label="pos")
    await world.label("c", label="neg", partition=1)
    (done,) = await world.trained()
    kinds = [type(record) for record in world.models()]
    assert kinds == [Training, ModelVersion, Verdict, ModelAlias, ModelAlias, Training]
    begun, version, _, alias, baseline, _ = world.models()
    assert begun.state is TrainingState.RUNNING
    assert begun.offsets == (OffsetRange(0, 0, 2), OffsetRange(1, 0, 1))
    assert begun.reason == "the first 3 labels"
    (job,) = world.launched
    assert (job.source.ranges, job.created_at_ms, job.id) == (begun.offsets, begun.begun_at_ms, begun.id)
    assert version.lineage.offsets == begun.offsets
    assert (alias.alias, alias.version, done.version) == ("champion", version.version, version.version)
    assert (baseline.alias, baseline.version) == ("baseline", version.version)
    assert world.metric("trainings_total", state="done") == 1.0


def awaited(caplog) -> list[tuple[str, int]]:
    said = [record for record in caplog.records if getattr(record, "event", "") == "training.awaited"]
    return [(record.levelname, record.fields["missing"]) for record in said]


def test_too_few_labels_are_said_at_once_and_with_every_change_ever_more_rarely(caplog):
    caplog.set_level("INFO", logger="headrace")

    @story
    async def play(world):
        world.start(least_rows=100)
        await world.until(lambda: awaited(caplog))
        for id_ in range(90):
            await world.label(f"id-{id_}")
            await world.clock.sleep(1)
        assert world.metric("labels_missing") == 10
        await world.clock.sleep(600)
        first, *more = awaited(caplog)
        assert first == ("WARNING", 100)
        assert 3 <= len(more) <= 5
        assert more[-1] == ("INFO", 10)
        await world.label(*(f"more-{id_}" for id_ in range(10)))
        await world.trained()
        await world.clock.sleep(5)
        assert world.metric("labels_missing") == 3, "the next training begins with three new ones"

    play()


@story
async def test_the_next_training_takes_new_labels_and_is_compared_with_the_champion(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    first = world.alias().version
    await world.label("a", "b")
    await world.clock.sleep(60)
    assert len(world.launched) == 1, "equal labels are no news"
    await world.label("a", "b", "c", label="neg")
    await world.trained(2)
    assert world.launched[1].source.ranges[0] == OffsetRange(0, 0, 8)
    assert world.launched[1].parent == first
    assert world.compared == [None, first]
    assert (world.alias().previous, world.alias().version) == (first, world.trainings()[-1].version)


@story
async def test_labels_that_come_while_a_training_runs_belong_to_the_next_one(world):
    world.start()
    world.train_s = 30.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    await world.label("d", "e", "f")
    await world.trained(2)
    assert [job.source.ranges[0].end for job in world.launched] == [3, 6]


@story
async def test_a_version_that_the_gate_holds_back_is_the_challenger_with_the_reason(world):
    world.start()
    world.promoted = False
    await world.label("a", "b", "c")
    (done,) = await world.trained()
    assert world.alias() is None
    assert (world.alias("challenger").version, world.alias("challenger").reason) == (done.version, "as told")


@story
async def test_a_pinned_champion_stays_and_the_promoted_version_is_the_challenger(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    pinned = msgspec.structs.replace(world.alias(), pinned=True)
    await world.decree(pinned)
    await world.label("d", "e", "f")
    (_, second) = await world.trained(2)
    assert world.alias() == pinned
    assert world.alias("challenger").version == second.version
    assert "pinned" in world.alias("challenger").reason


@story
async def test_the_baseline_is_the_first_champion_until_a_better_one_and_goes_into_every_later_job(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    first = world.alias().version
    await world.label("d", "e", "f")
    (_, second) = await world.trained(2)
    assert (world.alias().version, world.alias("baseline").version) == (second.version, first)
    assert world.launched[1].baseline is None, "the champion is the baseline"
    world.better = True
    await world.label("g", "h", "i")
    (*_, third) = await world.trained(3)
    assert (world.launched[2].champion.version, world.launched[2].baseline.version) == (second.version, first)
    assert world.alias("baseline").version == third.version
    assert world.alias("baseline").previous == first


@story
async def test_a_baseline_that_is_pinned_is_moved_by_hand_only(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    pinned = msgspec.structs.replace(world.alias("baseline"), pinned=True)
    await world.decree(pinned)
    world.better = True
    await world.label("d", "e", "f")
    (_, second) = await world.trained(2)
    assert world.alias().version == second.version
    assert world.alias("baseline") == pinned


@story
async def test_what_is_no_champion_is_no_baseline_either(world):
    world.start()
    world.promoted = False
    await world.label("a", "b", "c")
    await world.trained(1)
    assert world.alias("baseline") is None
    world.promoted = True
    await world.label("d", "e", "f")
    await world.trained(2)
    await world.decree(msgspec.structs.replace(world.alias(), pinned=True))
    before = world.alias("baseline")
    world.better = True
    await world.label("g", "h", "i")
    await world.trained(3)
    assert world.alias("baseline") == before, "a pinned champion keeps a better version from both"


@story
async def test_a_champion_from_before_there_were_baselines_becomes_the_first(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    first = world.alias().version
    await world.forget(world.alias("baseline"))
    await world.label("d", "e", "f")
    await world.trained(2)
    moves = [record for record in world.models() if isinstance(record, ModelAlias) and record.alias == "baseline"]
    assert [move.version for move in moves] == [first, first]


@story
async def test_a_champion_that_was_moved_by_hand_meanwhile_is_not_pushed_aside(world):
    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    first = world.alias()
    await world.label("d", "e", "f")
    await world.until(lambda: len(world.launched) == 2)
    version = next(record for record in world.models() if isinstance(record, ModelVersion))
    other = msgspec.structs.replace(version, version="by-hand")
    moved = msgspec.structs.replace(first, version="by-hand", previous=first.version)
    await world.decree(other, moved)
    (_, second) = await world.trained(2)
    assert world.alias() == moved
    assert world.alias("challenger").version == second.version
    verdict = [record for record in world.models() if isinstance(record, Verdict)][-1]
    assert not verdict.promoted
    assert "by-hand" in verdict.reason


@story
async def test_an_order_is_answered_once_with_every_label_published_before_it(world):
    world.start(least_rows=1000)
    await world.label("a")
    await world.clock.sleep(30)
    assert not world.launched
    await world.label("b", partition=1)
    # The clock of whoever gives an order may be ahead.
    await world.decree(TrainingOrder(name=NAME, ordered_at_ms=world.clock.now_ms() + 5000, reason="a new class"))
    (done,) = await world.trained()
    assert done.reason == "ordered: a new class"
    assert [one.end for one in done.offsets] == [1, 1]
    await world.clock.sleep(60)
    assert len(world.launched) == 1


async def ordered(world, *, limit_s: float | None = None, told: list[str]) -> Training:
    """Order a training and wait for its end, as the command does."""
    log = ModelsLog(world.cluster, TOPICS.models)
    await log.start()
    try:
        order = TrainingOrder(name=NAME, ordered_at_ms=world.clock.now_ms(), reason="by hand")
        await world.decree(order)
        return await answer_to(order, log, world.clock, limit_s=limit_s, tell=told.append)
    finally:
        await log.stop()


@story
async def test_who_waits_for_an_order_without_a_trainer_is_told_to_start_one_and_ends_in_time(world):
    told: list[str] = []
    with pytest.raises(OrderLateError, match=r"within 60 s: no trainer .* `headrace trainer` starts one\.") as raised:
        await ordered(world, limit_s=60.0, told=told)
    assert raised.value.exit_code == 4
    assert told == ["waiting: no trainer has taken the order yet; `headrace trainer` starts one"] * 3


@story
async def test_who_waits_for_an_order_is_told_of_the_training_before_and_of_its_own(world):
    told: list[str] = []
    world.start()
    world.train_s = 30.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    await ordered(world, told=told)
    assert "comes after it" in told[0]
    assert "comes after it" not in told[-1]
    assert "runs since" in told[-1]


@story
async def test_an_order_that_is_answered_soon_is_waited_for_without_a_word(world):
    told: list[str] = []
    world.start()
    world.train_s = 1.0
    await world.label("a")
    assert (await ordered(world, told=told)).state is TrainingState.DONE
    assert told == []


@story
async def test_an_order_from_the_far_future_is_not_answered_and_another_is(world):
    world.start(least_rows=1000)
    await world.label("a")
    for ahead_ms in (25 * 3600 * 1000, 10**18):
        await world.decree(TrainingOrder(name=NAME, ordered_at_ms=world.clock.now_ms() + ahead_ms, reason="forged"))
        await world.clock.sleep(30)
    assert not world.trainings()
    await world.decree(TrainingOrder(name=NAME, ordered_at_ms=world.clock.now_ms(), reason="now"))
    (done,) = await world.trained()
    assert done.reason == "ordered: now"


@story
async def test_a_failed_training_is_recorded_and_tried_again_after_a_while(world):
    world.start()
    world.fail = UserError("the ranks were short of memory")
    await world.label("a", "b", "c")
    (failed,) = await world.trained(1, TrainingState.FAILED)
    assert failed.error == "the ranks were short of memory"
    assert world.alias() is None
    await world.clock.sleep(50)
    assert len(world.launched) == 1
    world.fail = None
    (done,) = await world.trained()
    assert "after a failure" in done.reason
    assert done.begun_at_ms - failed.ended_at_ms >= 60_000


def test_what_others_libraries_say_is_in_no_record_and_no_log(caplog):
    @story
    async def play(world):
        world.start()
        world.fail = RuntimeError("sasl_password=hunter2")
        await world.label("a", "b", "c")
        (failed,) = await world.trained(1, TrainingState.FAILED)
        assert failed.error == "RuntimeError, an error that was not foreseen"

    play()
    assert any("in launch" in (record.fields.get("traceback") or "") for record in caplog.records)
    said = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "hunter2" not in said


@story
async def test_a_running_training_whose_id_is_a_path_fails_and_the_next_one_goes_well(world):
    stray = Training(name=NAME, id="../../elsewhere", state=TrainingState.RUNNING, reason="", begun_at_ms=1, offsets=())
    await world.decree(stray)
    world.start()
    (failed,) = await world.trained(1, TrainingState.FAILED)
    assert "'../../elsewhere' is no id of a training" in failed.error
    await world.label("a", "b", "c")
    (done,) = await world.trained()
    assert done.id.isdigit()
    assert len(world.launched) == 1


@story
async def test_a_gate_that_fails_promotes_nothing(world):
    async def decide(*_):
        raise UserError("the store is away")

    world.decide = decide
    world.start()
    await world.label("a", "b", "c")
    (failed,) = await world.trained(1, TrainingState.FAILED)
    assert "store is away" in failed.error
    assert world.alias() is world.alias("challenger") is None


@story
async def test_erasures_alone_begin_a_training_where_that_is_set(world):
    world.start(erasures=2)
    await world.label("a", "b", "c", "d", "e")
    await world.trained(1)
    await world.put("a", None)
    await world.clock.sleep(30)
    assert len(world.launched) == 1
    await world.put("b", None)
    (_, second) = await world.trained(2)
    assert second.reason == "2 erased labels"
    assert world.metric("labels") == 3.0


@story
async def test_drift_of_the_champions_answers_makes_few_new_labels_enough(world):
    world.start(drift_new_labels=1)
    await world.label("a", "b", "c")
    await world.trained(1)
    champion = world.alias().version
    await world.label("d")
    await world.clock.sleep(30)
    assert len(world.launched) == 1

    def answer(version: str, label: str) -> Outgoing:
        result = ClassifyResult(offset=0, after=-1, crc=0, status=Status.OK, version=version, label=label, score=0.55)
        return Outgoing(encode_result(result))

    others = [answer("another", "label 2") for _ in range(2000)]
    await world.producer.send_batch(TOPICS.results, 0, others)
    await world.clock.sleep(30)
    assert len(world.launched) == 1, "answers of another version say nothing of the champion"
    await world.producer.send_batch(TOPICS.results, 1, [answer(champion, "label 2") for _ in range(2000)])
    (_, second) = await world.trained(2)
    assert second.reason.startswith("drift: PSI ")


@story
async def test_once_trains_now_and_ends(world):
    await world.label("a")
    ended = await asyncio.wait_for(world.start(once=True), 120)
    assert (ended.state, ended.reason, ended.version) == (TrainingState.DONE, "once, by hand", world.alias().version)
    world.runs.clear()


@story
async def test_once_without_labels_trains_nothing(world):
    assert await asyncio.wait_for(world.start(once=True), 120) is None
    assert world.models() == []
    world.runs.clear()


@story
async def test_checkpoints_of_trainings_before_are_removed(world):
    import fsspec

    world.start()
    await world.label("a", "b", "c")
    await world.trained(1)
    await world.label("d", "e", "f")
    (_, second) = await world.trained(2)
    files, path = fsspec.url_to_fs(f"{world.store}/{NAME}/trainings")
    assert [one.rpartition("/")[2] for one in files.ls(path, detail=False)] == [second.id]
    assert len(files.ls(f"{path}/../versions".replace("/trainings/..", ""), detail=False)) == 2


@story
async def test_an_error_that_trying_again_cannot_mend_ends_the_trainer_with_its_reason(world):
    class Faults:
        async def point(self, member: str, name: str) -> None:
            if name == "join.before":
                raise NotAuthorizedError("no right to join")

    world.cluster.faults = Faults()
    run = world.start()
    with pytest.raises(NotAuthorizedError, match="no right"):
        await asyncio.wait_for(run, 60)
    world.runs.clear()


@story
async def test_a_training_that_runs_when_the_trainer_stops_is_left_to_the_next(world):
    world.start()
    world.train_s = 100.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    await world.stop()
    assert [training.state for training in world.trainings()] == [TrainingState.RUNNING]
    world.start()
    (done,) = await world.trained()
    assert world.launched[0] == world.launched[1]
    assert done.id == world.trainings()[0].id


class Away:
    """Kafka as the trainer ``t0`` finds it: nothing answers while ``away``."""

    def __init__(self, world) -> None:
        self.away = False
        world.cluster.faults = self

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(0)
        if self.away and member == "t0":
            raise BrokerUnavailableError("nothing listens there")


def test_a_trainer_without_a_broker_is_not_ready_says_so_seldom_and_goes_on(caplog):
    @story
    async def play(world):
        caplog.set_level("INFO", "headrace")
        kafka = Away(world)
        world.start()
        await world.until(lambda: world.trainers["t0"].unready is None)
        assert world.registry.get_sample_value("headrace_broker_connected") == 1
        kafka.away = True
        await world.clock.sleep(300)
        assert "Kafka at memory has not answered for " in world.trainers["t0"].unready
        assert world.registry.get_sample_value("headrace_broker_connected") == 0
        loud = [record for record in caplog.records if record.levelname != "INFO"]
        assert 0 < len(loud) < 30, [record.getMessage() for record in loud]
        kafka.away = False
        await world.until(lambda: world.trainers["t0"].unready is None)
        assert "broker.back" in [getattr(record, "event", "") for record in caplog.records]
        await world.label("a", "b", "c")
        await world.trained()

    play()


@pytest.mark.parametrize("gone", [(TOPICS.labels,), (TOPICS.models,), (TOPICS.labels, TOPICS.models)])
def test_a_trainer_whose_topics_are_gone_waits_for_them_and_starts_from_what_they_hold_then(gone):
    @story
    async def play(world):
        admin = world.cluster.admin()
        world.start()
        await world.label("a", "b", "c")
        await world.trained()
        for topic in gone:
            await admin.delete_topic(topic)
        await world.until(lambda: world.trainers["t0"].unready)
        await world.clock.sleep(100)
        assert f"missing topics: {', '.join(gone)}" in world.trainers["t0"].unready
        assert "`headrace topics apply`" in world.trainers["t0"].unready
        assert not world.runs["t0"].done()
        before = len(world.launched)
        for topic in gone:
            world.cluster.create_topic(TopicSpec(name=topic, partitions=1 if topic == TOPICS.models else 2))
        await world.until(lambda: world.trainers["t0"].unready is None)
        await world.label("d", "e", "f", "g")
        await world.until(lambda: len(world.launched) > before)
        assert all(one.first == 0 for one in world.launched[-1].source.ranges)

    play()


@story
async def test_rules_of_labels_go_into_the_next_job_and_what_is_known_is_read_anew_by_them(world):
    world.start()
    await world.label("a", "b", label="economy")
    await world.label("c", text="text a", label="business")
    await world.label("d")
    await world.clock.sleep(10)
    assert not world.launched, "text a has two labels, so two rows are usable"
    await world.decree(LabelRule(name=NAME, label="economy", becomes="business", decided_at_ms=1))
    await world.trained(1)
    assert world.launched[0].source.rules == {"economy": "business"}
