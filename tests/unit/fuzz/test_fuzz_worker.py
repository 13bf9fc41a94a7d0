"""Any records through the stages between fetch and publish: each gets one answer, and what failed a dead letter."""

from __future__ import annotations

import zlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.kafka.interface import FetchedRecord, Outgoing, TopicPartition, TopicSpec
from headrace.model.backends.interface import Backend, open_backend
from headrace.registry.compacted_topics import CREDIBLE_MAX_BATCH, ModelsLog, WorkersLog
from headrace_schemas.codec import (
    decode_models_record,
    decode_result,
    decode_workers_record,
    encode_models_record,
    encode_workers_record,
)
from headrace_schemas.dead_letters import dead_letter_from_record
from headrace_schemas.errors import WireError
from headrace_schemas.headers import JSON, MSGPACK, TIMEOUT_MS
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyResult, ModelVersion, ResultsClaim, Status
from headrace_schemas.topics import MAX_ANSWER_BYTES, models_key, version_key, workers_key
from tests.support.memory_kafka import MemoryCluster
from tests.support.mutations import examples, hostile
from tests.support.networks import TEXT, random_artifact
from tests.support.staged_batches import AFTER, staged
from tests.support.turned_loop import TurnedClock, run_turned
from tests.unit.fuzz.test_fuzz_wire import CODES, DOCUMENTS, MODELS, WORKERS, headers

VERSION = ModelVersion(name="m", version="known", uri="u", sha256="", size=0, labels=("a",), created_at_ms=1)
CLAIM = ResultsClaim(results="known", requests="r", group="g", claimed_at_ms=1, max_batch=4)
LATE = ((TIMEOUT_MS, b"1"),)
ODD_TEXTS = st.text(alphabet=st.sampled_from("ab ,\0\u0301\u202e\u200d😀你ß\ud7ff\U0010ffff"), max_size=40)
values = st.one_of(
    st.none(),
    hostile([*examples("classify-request"), *DOCUMENTS]),
    ODD_TEXTS.map(lambda text: msgspec.json.encode({"text": text, "id": text})),
    st.just(msgspec.json.encode({"text": TEXT})),
)
records = st.tuples(
    st.one_of(st.none(), st.binary(max_size=8)), values, st.one_of(headers, st.just(LATE)), st.integers(-1, 2**63 - 1)
)
SHAPES = {
    "ours": RequestShape(),
    "theirs": RequestShape(text_path="ticket.body", id_path="items.0.id", copy_fields={"whole": "ticket"}),
}


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend("cpu", random_artifact(1))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@settings(max_examples=150, deadline=None)
@given(
    given=st.lists(records, min_size=1, max_size=12), form=st.sampled_from([JSON, MSGPACK]), ranking=st.integers(0, 2)
)
def test_each_of_any_records_gets_its_answer_and_each_failure_its_dead_letter(backend, shape, given, form, ranking):
    fetched = [
        FetchedRecord("requests", 0, 10 + 3 * place, timestamp, key, value, found)
        for place, (key, value, found, timestamp) in enumerate(given)
    ]

    (encoded,) = staged(fetched, backend, shape=shape, form=form, ranking=ranking).encoded
    answers: list[ClassifyResult] = [decode_result(answer.value, form) for answer in encoded.answers]
    assert [answer.offset for answer in answers] == [record.offset for record in fetched]
    assert [answer.after for answer in answers] == [AFTER, *(record.offset for record in fetched[:-1])]
    assert [answer.crc for answer in answers] == [zlib.crc32(record.value or b"") for record in fetched]
    assert [answer.key for answer in encoded.answers] == [record.key for record in fetched]
    failed = [record for record, answer in zip(fetched, answers, strict=True) if answer.status is Status.FAILED]
    letters = [dead_letter_from_record(one.key, one.value, one.headers) for one in encoded.dead_letters]
    assert [(letter.offset, letter.key, letter.value) for letter in letters] == [
        (record.offset, record.key, record.value) for record in failed
    ]
    assert [letter.error for letter in letters] == [a.reason for a in answers if a.status is Status.FAILED]
    for answer in answers:
        assert answer.reason in CODES
        assert (answer.reason is not None) == (answer.status is Status.FAILED)
        assert (answer.label is not None) == (answer.status is Status.OK)
    for answer in encoded.answers:
        assert len(answer.value or b"") + sum(len(value or b"") for _, value in answer.headers) < MAX_ANSWER_BYTES


def keyed(value: bytes | None) -> st.SearchStrategy[bytes | None]:
    """Any key, or the one that keeps such a record, where ``value`` is one."""
    own = set()
    for decode, key_of in ((decode_models_record, models_key), (decode_workers_record, workers_key)):
        with suppress(WireError):
            if (record := decode(value)) is not None:
                own.add(key_of(record))
    return st.one_of(st.none(), st.binary(max_size=30), *map(st.just, own))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), hostile(MODELS), hostile(WORKERS)).flatmap(
            lambda value: st.tuples(keyed(value), st.just(value), headers)
        ),
        max_size=8,
    )
)
def test_rubbish_on_the_models_and_workers_topics_is_passed_over(written):
    async def read():
        cluster = MemoryCluster(TurnedClock())
        for name in ("models", "workers"):
            cluster.create_topic(TopicSpec(name=name, partitions=1))
            log = cluster.log(TopicPartition(name, 0))
            log.append_batch([Outgoing(value, key, found) for key, value, found in written], 0) if written else None
        last = Outgoing(encode_models_record(VERSION), version_key("m", "known"))
        cluster.log(TopicPartition("models", 0)).append_batch([last], 0)
        last = Outgoing(encode_workers_record(CLAIM), workers_key(CLAIM))
        cluster.log(TopicPartition("workers", 0)).append_batch([last], 0)
        models = ModelsLog(cluster, "models")
        workers = WorkersLog(cluster, "workers", models)
        await models.start()
        await workers.start()
        await workers.stop()
        await models.stop()
        return models, workers

    models, workers = run_turned(read())
    assert models.versions["m", "known"] == VERSION
    assert workers.claim_of("known") == CLAIM
    assert 1 <= workers.max_batch_of("known") <= CREDIBLE_MAX_BATCH
