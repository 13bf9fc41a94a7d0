"""Answers with explanations: for who asks, beside answers that are as they were."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from headrace.kafka.interface import FetchedRecord
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.explanation import Explainer
from headrace_schemas.codec import decode_result, encode_request
from headrace_schemas.headers import EXPLAIN, JSON, MSGPACK, TIMEOUT_MS
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, Status
from tests.support.models import SumModel
from tests.support.networks import random_artifact
from tests.support.staged_batches import staged

ASKED = ((EXPLAIN, b"1"),)


@cache
def backend() -> Backend:
    return open_backend("cpu", random_artifact(5, labels=3))


def record(offset: int, text: str, headers: tuple[tuple[str, bytes | None], ...] = ()) -> FetchedRecord:
    return FetchedRecord("requests", 0, offset, 0, None, encode_request(ClassifyRequest(text=text)), headers)


def answers(*records: FetchedRecord, by: Backend | None = None, form: str = JSON, ranking: int = 0):
    computed = staged(records, by or backend(), shape=RequestShape(), form=form, ranking=ranking)
    return [decode_result(answer.value, form) for answer in computed.encoded[0].answers]


def without(result: ClassifyResult) -> ClassifyResult:
    return msgspec.structs.replace(result, explanation=None)


@pytest.mark.parametrize("form", [JSON, MSGPACK])
@pytest.mark.parametrize("ranking", [0, 2])
def test_who_asks_gets_an_explanation_and_everything_else_stays(form: str, ranking: int) -> None:
    texts = ("the good film", "the bad film", "not good")
    plain = answers(*(record(5 + i, text) for i, text in enumerate(texts)), form=form, ranking=ranking)
    asked = answers(
        record(5, texts[0]), record(6, texts[1], ASKED), record(7, texts[2]), form=form, ranking=ranking
    )  # fmt: skip
    assert [answer.explanation is not None for answer in asked] == [False, True, False]
    assert asked[1].explanation == Explainer(backend().artifact).explain(texts[1])
    assert [without(answer) for answer in asked] == plain


@pytest.mark.parametrize(
    ("headers", "explained"),
    [(((EXPLAIN, b"0"),), False), (((EXPLAIN, b"0"), *ASKED), True), ((*ASKED, (TIMEOUT_MS, b"60000")), True)],
)
def test_the_last_header_says_whether_an_explanation_is_asked_for(headers, explained: bool) -> None:
    (answer,) = answers(record(5, "the good film", headers))
    assert (answer.explanation is not None) is explained


@pytest.mark.parametrize("value", [b"yes", b"", None, b"11", b"\xff"])
def test_a_header_that_says_something_else_fails_its_own_request_alone(value: bytes | None) -> None:
    wrong, right = answers(record(5, "the good film", ((EXPLAIN, value),)), record(6, "not good", ASKED))
    assert (wrong.status, wrong.reason, right.status) == (Status.FAILED, "bad-header", Status.OK)
    assert right.explanation is not None


def test_what_expired_or_failed_is_not_explained() -> None:
    late = record(5, "the good film", (*ASKED, (TIMEOUT_MS, b"1")))
    assert [answer.explanation for answer in answers(late)] == [None]


def test_a_text_that_can_not_be_explained_fails_alone() -> None:
    """This model has no artifact to explain by."""
    wrong, right = answers(record(5, "the good film", ASKED), record(6, "not good"), by=SumModel())
    assert (wrong.status, wrong.reason, wrong.label) == (Status.FAILED, "not-explained", None)
    assert right.status is Status.OK
