import pytest

from headrace.client import Answer
from headrace.demo.learning.screen import BESIDE_MS, Observed, Swap, Waited, in_order, swap
from headrace.demo.ledger import Sent
from headrace.registry.models_log import Move
from headrace_schemas.records import ClassifyResult, ModelAlias, Status
from tests.support.turned_loop import TurnedClock, run_turned

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
