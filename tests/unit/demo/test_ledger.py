import pytest

from headrace.client import Answer, Published
from headrace.demo.ledger import Ledger, Sent
from headrace_schemas.records import ClassifyResult, Status

CRC = 7


def answer(offset: int, label: str | None = "sport", *, crc: int = CRC, status: Status = Status.OK) -> Answer:
    result = ClassifyResult(offset=offset, after=offset - 1, crc=crc, status=status, version="v1", label=label)
    return Answer(partition=0, position=offset, timestamp_ms=0, key=None, headers=(), result=result)


def published(*offsets: int) -> list[Published]:
    return [Published(0, offset, CRC) for offset in offsets]


def test_every_text_that_is_answered_once_leaves_nothing_lost_and_nothing_repeated() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a"), Sent("b")], published(0, 1))
    ledger.take(answer(0), 1.0)
    ledger.take(answer(1, "money"), 1.0)
    assert (ledger.published, ledger.answered, ledger.waiting, ledger.repeated) == (2, 2, 0, 0)
    assert ledger.labels == {"sport": 1, "money": 1}


def test_a_text_without_an_answer_goes_on_waiting() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a"), Sent("b")], published(0, 1))
    ledger.take(answer(1), 1.0)
    assert (ledger.answered, ledger.waiting) == (1, 1)


def test_an_answer_before_the_acknowledgement_counts_with_the_time_of_its_arrival() -> None:
    ledger = Ledger()
    ledger.take(answer(0), 1.25)
    ledger.acknowledge([Sent("a", due=1.0)], published(0))
    assert (ledger.answered, ledger.waiting, ledger.repeated) == (1, 0, 0)
    assert ledger.latencies.quantile(0.5) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("times", [2, 3])
def test_an_answer_that_comes_again_is_a_repeat(times: int) -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a")], published(0))
    for _ in range(times):
        ledger.take(answer(0), 1.0)
    assert (ledger.answered, ledger.repeated) == (1, times - 1)
    ledger.acknowledge([Sent("b")], published(1))
    assert ledger.repeated == times - 1


def test_an_answer_that_comes_twice_before_the_acknowledgement_is_a_repeat() -> None:
    ledger = Ledger()
    ledger.take(answer(0), 1.0)
    ledger.take(answer(0), 1.0)
    ledger.acknowledge([Sent("a")], published(0))
    assert (ledger.answered, ledger.repeated) == (1, 1)


def test_an_answer_to_what_nobody_published_is_a_repeat() -> None:
    ledger = Ledger()
    ledger.take(answer(5), 1.0)
    ledger.acknowledge([Sent("a")], published(0))
    assert (ledger.answered, ledger.waiting, ledger.repeated) == (0, 1, 1)


def test_an_answer_to_another_text_is_none() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a")], published(0))
    ledger.take(answer(0, crc=CRC + 1), 1.0)
    assert (ledger.answered, ledger.waiting) == (0, 1)


def test_accuracy_is_of_the_texts_whose_label_is_known() -> None:
    ledger = Ledger()
    sent = [Sent("a", truth="sport"), Sent("b", truth="money"), Sent("c", truth="money"), Sent("d")]
    ledger.acknowledge(sent, published(0, 1, 2, 3))
    ledger.take(answer(0, "sport"), 1.0)
    ledger.take(answer(1, "sport"), 1.0)
    ledger.take(answer(3, "sport"), 1.0)
    assert (ledger.right, ledger.scored) == (1, 3), "what is lost is not right either"


def test_statuses_are_counted_and_what_has_no_label_has_none() -> None:
    ledger = Ledger()
    ledger.acknowledge([Sent("a", truth="sport"), Sent("b")], published(0, 1))
    ledger.take(answer(0, None, status=Status.FAILED), 1.0)
    ledger.take(answer(1), 1.0)
    assert ledger.statuses == {Status.FAILED: 1, Status.OK: 1}
    assert ledger.labels == {"sport": 1}
    assert ledger.right == 0
