import asyncio
import io
import random

import pytest
from rich.console import Console

from headrace.client import Answer
from headrace.client.labels import publish_labels
from headrace.demo.stream import Sent, Snapshot
from headrace.demo.versions import (
    BESIDE_MS,
    LIMIT_S,
    Keyed,
    Made,
    Observed,
    Swap,
    TrainingEndedError,
    Waited,
    erasure,
    in_order,
    in_two_parts,
    made_by,
    made_lines,
    order_of_versions,
    quotes,
    swap,
    swaps_table,
    to_forget,
    training_begun,
    whole_stream,
)
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Part
from headrace.model.artifact import About, Canary, assemble
from headrace.model.quantizing import quantize
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter, Move
from headrace_schemas.codec import decode_label
from headrace_schemas.records import (
    ClassifyResult,
    LabelledText,
    Lineage,
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    Status,
    Training,
    TrainingState,
    Verdict,
)
from tests.support.memory_kafka import MemoryCluster
from tests.support.networks import random_network
from tests.support.turned_loop import TurnedClock, run_turned

ROWS = Rows(tuple(f"text {number}" for number in range(200)), ("x", "y") * 100)


def version(*quoted: str):
    label = assemble(quantize(random_network(3)), About()).labels[0]
    return assemble(quantize(random_network(3)), About(canaries=tuple(Canary(text, label) for text in quoted)))


def divided() -> tuple[list[Keyed], list[Keyed]]:
    return in_two_parts(ROWS, 0.6, random.Random(1))


def test_the_parts_are_all_rows_by_chance_each_with_an_id_of_its_own() -> None:
    first, rest = divided()
    assert (len(first), len(rest)) == (120, 80)
    both = first + rest
    assert len({one.id for one in both}) == len(ROWS)
    assert {(one.text, one.label) for one in both} == set(zip(ROWS.texts, ROWS.labels, strict=True))
    assert [one.text for one in first] != list(ROWS.texts[:120])


def test_what_is_forgotten_was_trained_on_or_is_quoted() -> None:
    first, rest = divided()
    quoted = next(one for one in first if UNKEYED.part_of(one.key) is Part.TEST)
    forgotten = to_forget(first, rest, version(quoted.text))
    trained, test = sorted(forgotten, key=lambda one: UNKEYED.part_of(one.key) is Part.TEST)
    assert test == quoted
    assert UNKEYED.part_of(trained.key) is Part.TRAIN
    assert trained in first


def test_the_same_text_of_another_id_is_forgotten_too() -> None:
    first, rest = divided()
    before = to_forget(first, rest, version())
    again = Keyed("another", before[0].text.upper(), before[0].label, key=before[0].key)
    assert to_forget(first, [*rest, again], version()) == [*before, again]


def test_a_quotation_that_could_be_of_two_texts_is_nobodys() -> None:
    first, rest = divided()
    assert to_forget(first, rest, version("text 1")) == to_forget(first, rest, version())


def test_the_quotations_of_some_texts_are_counted() -> None:
    first, _ = divided()
    some = version(first[0].text[:5], first[1].text, "of somebody else")
    assert quotes(some, first[:2]) == 2
    assert quotes(some, []) == 0


async def test_labels_are_published_by_id_and_erased_by_tombstones(memory_cluster: MemoryCluster) -> None:
    memory_cluster.create_topic(TopicSpec(name="labels", partitions=1))
    one, other = divided()[0][:2]
    await publish_labels(memory_cluster, "labels", labels=[one, other], erased=[one.id])
    records = memory_cluster.log(TopicPartition("labels", 0)).records
    assert [record.key.decode() for record in records] == [one.id, other.id, one.id]
    assert decode_label(records[1].value) == LabelledText(text=other.text, label=other.label)
    assert records[2].value is None


VERSION = ModelVersion(
    name="default", version="v", uri="memory://v", sha256="0" * 64, size=1, labels=("a", "b"), created_at_ms=1
)
VERDICT = Verdict(name="default", version="v", promoted=True, reason="it is good", decided_at_ms=1)


def training(number: int, state: TrainingState, **more: str) -> Training:
    return Training(
        name="default", id=f"t{number}", state=state, reason="asked", begun_at_ms=number, offsets=(), **more
    )


def told(*later: ModelsRecord) -> Made:
    """What is found of a second training when the trainer publishes ``later``, a second apart."""

    async def main() -> Made:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name="models", partitions=1))
        producer, log = cluster.producer(), ModelsLog(cluster, "models")
        await producer.start()
        writer = ModelsWriter(producer, "models")
        await writer.publish([training(1, TrainingState.DONE, version="before")])
        await log.start()

        async def trainer() -> None:
            for record in later:
                await clock.sleep(1.0)
                await writer.publish([record])

        training_on = asyncio.create_task(trainer())
        try:
            return await made_by(await training_begun(log, "default", "t1", clock), log, clock)
        finally:
            training_on.cancel()
            await asyncio.gather(training_on, return_exceptions=True)
            await log.stop()
            await producer.stop()
            await cluster.close()

    return run_turned(main())


def test_a_version_is_told_with_its_training_and_its_verdict() -> None:
    done = training(2, TrainingState.DONE, version="v")
    made = told(training(2, TrainingState.RUNNING), VERSION, VERDICT, done)
    assert made == Made(done, VERSION, VERDICT)


def test_a_training_that_fails_ends_the_wait_with_its_reason() -> None:
    failed = training(2, TrainingState.FAILED, error="there is no room")
    with pytest.raises(TrainingEndedError, match="Training t2 failed: there is no room"):
        told(training(2, TrainingState.RUNNING), failed)


def test_no_training_is_waited_for_for_ever() -> None:
    with pytest.raises(TrainingEndedError, match=f"The trainer has begun no training in {LIMIT_S:.0f} s"):
        told()
    with pytest.raises(TrainingEndedError, match="The trainer has not ended training t2 in"):
        told(training(2, TrainingState.RUNNING))


MOVED_MS = 100_000


def moved_to(version: str) -> Move:
    # What the record says of its time is when the move was decided; the record itself came later.
    alias = ModelAlias(name="default", alias="champion", version=version, moved_at_ms=MOVED_MS - 700)
    return Move(alias, MOVED_MS)


def answer(partition: int, version: str, answered_ms: int = 0) -> Answer:
    result = ClassifyResult(offset=0, after=-1, crc=0, status=Status.OK, version=version)
    return Answer(partition, 0, answered_ms, None, (), result)


def waited(
    due_ms: float, seconds: float = 0.01, *, partition: int = 0, after_ms: int = 10, version: str = "b"
) -> Waited:
    return Waited(due_ms, seconds, partition, round(due_ms) + after_ms, version)


def test_a_swap_is_measured_from_the_record_to_the_first_answers() -> None:
    waits = [
        waited(MOVED_MS - 5, version="a"),
        waited(MOVED_MS + 40, partition=1),
        waited(MOVED_MS + 90, partition=0),
        waited(MOVED_MS + 300, partition=0),
    ]
    assert swap(waits, moved_to("b")) == Swap(first=0.05, everywhere=0.1, worst=0.01, beside=4)


def test_the_worst_wait_is_of_those_that_were_due_beside_the_swap() -> None:
    end_ms = MOVED_MS + 50 + BESIDE_MS
    waits = [
        waited(MOVED_MS - BESIDE_MS - 1, 9.0, version="a"),
        waited(MOVED_MS - BESIDE_MS, 0.2, version="a"),
        waited(MOVED_MS + 40),
        waited(end_ms, 0.3),
        waited(end_ms + 1, 9.0),
    ]
    found = swap(waits, moved_to("b"))
    assert (found.worst, found.beside) == (0.3, 3)


def test_what_a_version_answered_before_it_was_moved_to_again_does_not_count() -> None:
    waits = [waited(MOVED_MS - 5000), waited(MOVED_MS - 100, version="a"), waited(MOVED_MS + 20)]
    assert swap(waits, moved_to("b")).first == 0.03


def test_a_version_that_answered_nothing_has_no_swap() -> None:
    with pytest.raises(ValueError, match="b has answered nothing since the alias was moved to it"):
        swap([waited(MOVED_MS + 1, version="a"), waited(MOVED_MS - 500)], moved_to("b"))


def test_a_wait_is_from_when_a_text_was_due_and_has_a_date() -> None:
    async def main() -> Waited:
        clock = TurnedClock()
        observed = Observed(clock)
        begun_s, begun_ms = clock.monotonic(), clock.now_ms()
        observed.note(Sent("text", due=begun_s + 2.0), answer(3, "a", 77), begun_s + 2.5)
        observed.note(Sent("an article, which was not due at any time"), answer(3, "a", 78), begun_s + 2.5)
        [one] = observed.waits
        assert one.due_ms == pytest.approx(begun_ms + 2000, abs=1)
        return one

    found = run_turned(main())
    assert (found.seconds, found.partition, found.answered_ms, found.version) == (0.5, 3, 77, "a")


def test_the_versions_of_each_partition_are_noted_as_they_change() -> None:
    observed = run_turned(_observed())
    for partition, version in [(0, "a"), (0, "a"), (1, "a"), (0, "b"), (0, "a")]:
        observed.note(Sent("text", due=0.0), answer(partition, version), 1.0)
    assert observed.runs == {0: ["a", "b", "a"], 1: ["a"]}
    assert observed.answering(2) == {"a"}
    assert observed.answering(3) is None, "one partition has answered nothing yet"
    observed.note(Sent("text", due=0.0), answer(1, "b"), 1.0)
    assert observed.answering(2) == {"a", "b"}


async def _observed() -> Observed:
    return Observed(TurnedClock())


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        ([["a", "b"], ["a", "b"]], True),
        ([["a", "b"], ["a", "b", "a"]], False),
        ([["a", "b"], ["b"]], False),
        ([["b", "a"], ["b", "a"]], False),
    ],
)
def test_every_partition_has_to_be_answered_by_the_champions_in_their_order(runs: list[list[str]], kept: bool) -> None:
    assert in_order(runs, ["a", "b"]) is kept


def made(*, promoted: bool = True, dropped: dict[str, int] | None = None) -> Made:
    lineage = Lineage(source="labels", digest="0", rows=1184, ranks=2, dropped=dropped or {})
    return Made(
        Training(
            name="default",
            id="1",
            state=TrainingState.DONE,
            reason="asked",
            begun_at_ms=1000,
            offsets=(),
            ended_at_ms=21_500,
            version="v",
        ),
        ModelVersion(
            name="default",
            version="v",
            uri="memory://v",
            sha256="0",
            size=123_456,
            labels=("a", "b"),
            created_at_ms=1,
            metrics={
                "test_macro_f1": 0.97123,
                "test_macro_f1_low": 0.93,
                "test_macro_f1_high": 0.99,
                "test_rows": 116.0,
            },
            lineage=lineage,
        ),
        Verdict(name="default", version="v", promoted=promoted, reason="so it is", decided_at_ms=1),
    )


def test_a_version_is_told_with_its_rows_its_score_and_the_gates_reason() -> None:
    assert made_lines(made(dropped={"duplicate": 35, "erased": 2, "empty": 0})) == [
        "v: 0.12 MB, 2 labels, after 20 s",
        "2 ranks trained on 1,184 rows of labels; left out: 35 duplicate, 2 erased",
        "macro-F1 97.12% (95 % interval 93.0% to 99.0%) on 116 test rows, which no training sees",
        "gate: promoted: so it is",
    ]
    assert made_lines(made())[1] == "2 ranks trained on 1,184 rows of labels"
    assert made_lines(made(promoted=False))[-1] == "gate: not promoted: so it is"


def test_every_swap_is_a_row_that_fits_into_a_terminal() -> None:
    on = Console(file=io.StringIO(), width=80, highlight=False)
    on.print(swaps_table([("2, promoted", Swap(first=0.0571, everywhere=0.2, worst=1.25, beside=1412))]))
    assert "│ 2, promoted │        57 ms │         200 ms │     1,250 ms │       1,412 │" in on.file.getvalue()


def test_the_stream_is_told_for_comparison() -> None:
    end = Snapshot(elapsed_s=9.0, seconds=None, answered=7739, labels=(), rate=99.0, p50=0.025, p99=0.121, lag=0)
    assert whole_stream(end)[0] == "the whole stream: 7,739 answers, median wait 25 ms, p99 121 ms"


def test_what_was_erased_and_who_answered_is_said() -> None:
    assert erasure(3, 3, 1, 0) == (
        "erased: 3 of 3 labels left out of version 2; version 1 quotes 1 of them to test itself, version 2 0"
    )
    assert order_of_versions(kept=True).endswith(": yes")
    assert order_of_versions(kept=False).endswith(": NO")
