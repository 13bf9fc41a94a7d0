import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import AnswerLogError, AnswerReader, Place, decode_positions, encode_positions
from headrace.core.answer_log import Hole
from headrace.core.errors import UserError
from headrace.core.fields import StartError
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec, UnknownTopicError
from tests.support.answer_log import answer
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.turned_loop import TurnedClock, run_turned

RESULTS = "classify.results"
LIMIT_S = 500.0
"""On the turned clock, so it passes at once where a test waits in vain."""
FIRST = TopicPartition(RESULTS, 0)


class Log:
    """A results topic of the twin and readers of it."""

    def __init__(self, partitions: int = 1) -> None:
        self.clock = TurnedClock()
        self.cluster = MemoryCluster(self.clock)
        self.cluster.create_topic(TopicSpec(name=RESULTS, partitions=partitions))

    def append(self, *answers: Outgoing, partition: int = 0) -> None:
        self.cluster.log(TopicPartition(RESULTS, partition)).append_batch(list(answers), 0)

    async def reader(self, from_: Any = "beginning", **settings: Any) -> AnswerReader:
        settings = {"look_back": 20, "clock": self.clock, **settings}
        reader = AnswerReader(self.cluster.consumer(), RESULTS, from_=from_, **settings)
        await reader.start()
        return reader


def on_a_log(partitions: int = 1) -> Callable[[Callable[[Log], Coroutine[Any, Any, None]]], Callable[[], None]]:
    def decorate(play: Callable[[Log], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                log = Log(partitions)
                try:
                    async with asyncio.timeout(LIMIT_S):
                        await play(log)
                finally:
                    await log.cluster.close()

            run_turned(main())

        test.__name__ = play.__name__
        return test

    return decorate


async def offsets(reader: AnswerReader) -> list[int]:
    found: list[int] = []
    while answers := await reader.read(timeout_s=0.1):
        found += [one.result.offset for one in answers]
    return found


async def until_it_ends(reader: AnswerReader) -> None:
    while await reader.read() == []:
        pass


def chain(*numbers: int) -> list[Outgoing]:
    """Answers to requests ``numbers``, each the successor of the one before."""
    return [answer(number, after) for after, number in zip((numbers[0] - 1, *numbers), numbers, strict=False)]


@on_a_log()
async def test_a_repeat_is_dropped_and_a_hole_is_on_the_answer_behind_it(log: Log) -> None:
    log.append(*chain(0, 1, 2), *chain(1, 2), answer(5, 4), answer(6, 5))
    reader = await log.reader()
    answers = await reader.read()
    assert [(one.result.offset, one.hole) for one in answers] == [
        (0, None),
        (1, None),
        (2, None),
        (5, Hole(3, 4)),
        (6, None),
    ]
    assert [one.position for one in answers] == [0, 1, 2, 5, 6]


@on_a_log()
async def test_offsets_that_the_requests_log_does_not_have_are_no_hole(log: Log) -> None:
    log.append(*chain(0, 1, 7, 8))
    assert all(one.hole is None for one in await (await log.reader()).read())


@on_a_log()
async def test_a_reader_at_the_end_knows_what_was_answered_before(log: Log) -> None:
    log.append(*chain(0, 1, 2, 3))
    reader = await log.reader("latest")
    log.append(*chain(2, 3), answer(5, 4))
    answers = await reader.read()
    assert [(one.result.offset, one.hole) for one in answers] == [(5, Hole(4, 4))]


@on_a_log()
async def test_a_reader_without_look_back_would_take_a_repeat_for_news(log: Log) -> None:
    log.append(*chain(0, 1, 2, 3))
    reader = await log.reader("latest", look_back=0)
    log.append(*chain(2, 3))
    assert await offsets(reader) == [2, 3]


@on_a_log()
async def test_looking_back_passes_offsets_that_hold_no_record(log: Log) -> None:
    log.append(*chain(0, 1))
    log.cluster.log(FIRST).add_gap()
    reader = await log.reader("latest")
    log.append(*chain(1, 2))
    assert await offsets(reader) == [2]


def far_behind(log: Log) -> None:
    """A zombie of old answers more answers again, behind newer ones, than any look-back holds; and goes on so."""
    log.append(*chain(*range(200)))
    log.append(*chain(*range(100)))


@on_a_log()
async def test_a_reader_that_keeps_its_place_sees_no_answer_again_however_far_behind_a_zombie_writes(log: Log) -> None:
    far_behind(log)
    reader = await log.reader()
    assert await offsets(reader) == list(range(200))
    kept = decode_positions(encode_positions(reader.positions))
    log.append(*chain(*range(100, 201)))
    assert await offsets(await log.reader(kept)) == [200]


@on_a_log()
async def test_a_reader_may_keep_the_place_of_the_last_answer_that_it_has_done_with(log: Log) -> None:
    far_behind(log)
    log.append(*chain(*range(100, 201)))
    reader = await log.reader()
    done = (await reader.read())[150]
    answers = await (await log.reader({done.partition: done.place})).read()
    assert [one.result.offset for one in answers] == list(range(151, 201))


@on_a_log()
async def test_a_reader_with_a_position_alone_looks_back(log: Log) -> None:
    log.append(*chain(*range(30)), *chain(*range(20, 30)))
    assert await offsets(await log.reader({0: 30})) == []
    assert await offsets(await log.reader(decode_positions(b'{"0": 30}'))) == []


@on_a_log()
async def test_a_kept_place_that_retention_took_says_the_hole(log: Log) -> None:
    log.append(*chain(*range(10)))
    log.cluster.log(FIRST).truncate_before(7)
    answers = await (await log.reader({0: Place(3, 2)})).read()
    assert [(one.result.offset, one.hole) for one in answers] == [(7, Hole(3, 6)), (8, None), (9, None)]


@on_a_log()
async def test_looking_back_counts_answers_as_workers_do_and_not_offsets(log: Log) -> None:
    log.append(*chain(*range(10)))
    for _ in range(30):
        log.append(Outgoing(b"not json"))
        log.cluster.log(FIRST).add_gap()
    reader = await log.reader("latest")
    log.append(*chain(*range(5, 11)))
    assert await offsets(reader) == [10]


@pytest.mark.parametrize("text", [b"", b"[]", b'{"0": "1"}', b'{"0": {"position": -1}}', b'{"a": 1}'])
def test_a_text_that_holds_no_positions_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(UserError, match="positions"):
        decode_positions(text)


@on_a_log(2)
async def test_chosen_partitions_are_the_only_ones_read(log: Log) -> None:
    log.append(*chain(0), partition=0)
    log.append(*chain(8), partition=1)
    assert await offsets(await log.reader(partitions=[1])) == [8]
    with pytest.raises(UnknownTopicError, match="no partition 5"):
        await log.reader(partitions=[5])


@on_a_log(2)
async def test_a_place_in_a_partition_that_is_not_there_is_named(log: Log) -> None:
    log.append(*chain(0))
    for from_ in ({5: 0}, {0: 0, 5: Place(0)}):
        with pytest.raises(UnknownTopicError, match=r"no partition 5; it has 2, from 0 to 1"):
            await log.reader(from_)
    assert await offsets(await log.reader({1: 0}, partitions=[0])) == [0]


@on_a_log()
async def test_a_topic_that_is_deleted_under_its_reader_is_named_with_how_far_it_was_read(log: Log) -> None:
    log.append(*chain(0, 1))
    reader = await log.reader()
    assert await offsets(reader) == [0, 1]
    log.cluster.delete_topic(RESULTS)
    with pytest.raises(
        AnswerLogError, match=r"no topic classify\.results any more, whose partition 0 was read up to 2"
    ):
        await until_it_ends(reader)


@pytest.mark.parametrize(("looks", "anew"), [(0, False), (1, False), (2, True)])
def test_a_log_that_ends_before_the_reader_is_made_anew_only_when_it_is_seen_twice(looks: int, anew: bool) -> None:
    """As on the embedded broker, which answers a fetch beyond the end with nothing."""

    class Short(MemoryConsumer):
        left = looks

        async def fetch(self, **_: Any) -> Any:
            await log.clock.sleep(1.0)
            return {}

        async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
            ends = await super().end_offsets(partitions)
            if reading and self.left:
                self.left -= 1
                return dict.fromkeys(ends, 1)
            return ends

    async def main() -> None:
        nonlocal log
        log = Log()
        log.append(*chain(0, 1, 2))
        reader = AnswerReader(
            Short(log.cluster.node("local"), group=None, member=None),
            RESULTS,
            from_="latest",
            look_back=0,
            clock=log.clock,
        )
        await reader.start()
        reading.append(True)
        said: list[str] = []
        while log.clock.monotonic() < 60 and not said:
            try:
                await reader.read()
            except AnswerLogError as error:
                said.append(str(error))
        assert bool(said) == anew
        assert all("classify.results[0] ends at 1, before the position 3" in one for one in said)
        await log.cluster.close()

    log: Log = None  # type: ignore[assignment]
    reading: list[bool] = []
    run_turned(main())


@on_a_log(2)
async def test_the_logs_ends_are_told_without_reading(log: Log) -> None:
    reader = await log.reader("latest")
    log.append(*chain(0), *chain(1), partition=0)
    log.append(*chain(8), partition=1)
    assert await reader.ends() == {0: len(chain(0)) + len(chain(1)), 1: len(chain(8))}
    assert reader.positions == {0: Place(0), 1: Place(0)}


@on_a_log()
async def test_a_partition_that_is_added_is_read_from_its_beginning(log: Log) -> None:
    log.append(*chain(0))
    reader = await log.reader("latest")
    await log.cluster.admin().add_partitions(RESULTS, 2)
    log.append(*chain(3), partition=1)
    log.append(*chain(1), partition=0)
    found: list[int] = []
    while len(found) < 2:
        found += [one.result.offset for one in await reader.read()]
    assert sorted(found) == [1, 3]


@on_a_log()
async def test_what_is_no_answer_is_passed_over(log: Log) -> None:
    log.append(answer(0, -1), Outgoing(b"not json"), Outgoing(None), answer(1, 0))
    assert await offsets(await log.reader()) == [0, 1]


@on_a_log()
async def test_a_position_beyond_the_end_says_that_the_log_was_cut(log: Log) -> None:
    log.append(*chain(0, 1))
    with pytest.raises(AnswerLogError, match=r"ends at 2, before the position 9"):
        await log.reader({0: 9})


@on_a_log()
async def test_a_log_that_is_cut_behind_the_reader_is_said(log: Log) -> None:
    log.append(*chain(0, 1, 2))
    reader = await log.reader()
    await offsets(reader)
    log.cluster.log(FIRST).drop_tail(1)
    with pytest.raises(AnswerLogError, match="was cut or made anew"):
        await reader.read()


@on_a_log()
async def test_a_reader_that_retention_overtakes_goes_on_and_says_the_hole(log: Log) -> None:
    log.append(*chain(0, 1))
    reader = await log.reader()
    assert await offsets(reader) == [0, 1]
    log.append(*chain(2, 3, 4, 5))
    log.cluster.log(FIRST).truncate_before(5)
    assert await reader.read() == []
    answers = await reader.read()
    assert [(one.result.offset, one.hole) for one in answers] == [(5, Hole(2, 4))]


@on_a_log()
async def test_an_absent_topic_is_named(log: Log) -> None:
    log.cluster.delete_topic(RESULTS)
    with pytest.raises(UnknownTopicError, match=RESULTS):
        await log.reader()


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Outgoing], dict[int, int]]:
    """An answer log with repeats and holes, and what a reader must say: offset to the last offset lost before it."""
    written: list[Outgoing] = []
    expected: dict[int, int] = {}
    recent: list[Outgoing] = []
    previous = -1
    for _ in range(draw(st.integers(1, 12))):
        batch: list[Outgoing] = []
        for _ in range(draw(st.integers(1, 4))):
            offset = previous + draw(st.sampled_from([1, 1, 1, 2, 5]))
            if draw(st.sampled_from([False, False, False, True])) and expected:
                previous, offset = offset, offset + 1  # the one at ``previous`` is never answered
            batch.append(answer(offset, previous))
            expected[offset] = previous
            previous = offset
        written += batch
        recent = [*recent, *batch][-8:]
        # A zombie appends again what it had under way: at most what four batches hold.
        begin = draw(st.integers(0, len(recent)))
        written += draw(st.sampled_from([[], [], recent[begin:]]))
    return written, expected


@given(histories(), st.lists(st.integers(0, 100), max_size=4))
def test_a_reader_that_starts_again_anywhere_gets_every_answer_once_and_every_hole_once(
    history: tuple[list[Outgoing], dict[int, int]], restarts: list[int]
) -> None:
    written, expected = history

    async def main() -> None:
        log = Log()
        log.append(*written)
        positions: Mapping[int, int] = {0: 0}
        said: list[tuple[int, Hole | None]] = []
        for until in [*sorted(restarts), len(written)]:
            reader = await log.reader(positions)
            while reader.positions[0].position < min(until, len(written)):
                # A chunk may go beyond ``until``; what is behind it is not taken, as by a reader that is killed.
                answers = [one for one in await reader.read() if one.position < until]
                said += [(one.result.offset, one.hole) for one in answers]
            positions = {0: max(positions[0], min(until, len(written)))}  # alone, so that it looks back
            await reader.stop()
        await log.cluster.close()
        assert [offset for offset, _ in said] == list(expected)
        before = -1
        for offset, hole in said:
            lost = expected[offset] > before >= 0
            assert hole == (Hole(before + 1, expected[offset]) if lost else None)
            before = offset

    run_turned(asyncio.wait_for(main(), LIMIT_S))


@on_a_log()
async def test_answers_that_come_while_a_read_waits_wake_it(log: Log) -> None:
    reader = await log.reader("latest")
    waiting = asyncio.create_task(reader.read(timeout_s=1000.0))
    await log.clock.sleep(1.0)
    log.append(*chain(4))
    assert [one.result.offset for one in await waiting] == [4]
    assert log.clock.monotonic() < 2.0


@on_a_log()
async def test_a_reader_begins_at_a_word_or_a_time_and_the_words_are_those_of_the_command_line(log: Log) -> None:
    log.append(*chain(0, 1))
    middle = dt.datetime.fromtimestamp(1000, dt.UTC)
    log.cluster.log(FIRST).append_batch(list(chain(1, 2, 3)), 2_000_000)
    for start in ("earliest", "beginning"):
        assert await offsets(await log.reader(start)) == [0, 1, 2, 3]
    for start in ("latest", "end", "2100-01-01"):
        assert await offsets(await log.reader(start)) == []
    for start in (middle, middle.isoformat(), middle.replace(tzinfo=None).isoformat()):
        assert await offsets(await log.reader(start)) == [2, 3]


@on_a_log()
async def test_a_reader_refuses_what_is_no_start_instead_of_reading_the_whole_log_again(log: Log) -> None:
    for start in ("Latest", "banana", "", None, 7):
        with pytest.raises(StartError, match="no place to begin at"):
            await log.reader(start)
