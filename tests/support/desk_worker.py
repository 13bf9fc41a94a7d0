"""Some lines in place of a worker: it answers by a version's artifact, and explains where that is asked for."""

from __future__ import annotations

import asyncio
import random
import zlib

from headrace.kafka.interface import Outgoing, TopicPartition, connected
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.explanation import explainer_of
from headrace_schemas.codec import decode_request, encode_result
from headrace_schemas.headers import content_type, read_explain
from headrace_schemas.records import ClassifyResult, Score, Status
from tests.support.console_site import PARTITIONS, ConsoleSite

ABSTAIN_BELOW = 0.55


def result_of(backend: Backend, offset: int, value: bytes, content: str, *, explain: bool) -> ClassifyResult:
    artifact = backend.artifact
    text = decode_request(value, content).text
    answers = backend.classify([text.encode()], 3)
    ranking = tuple(
        Score(artifact.labels[place], round(float(score), 4))
        for place, score in zip(answers.ranking[0], answers.ranking_scores[0], strict=True)
    )
    return ClassifyResult(
        offset=offset,
        after=offset - 1,
        crc=zlib.crc32(value),
        status=Status.OK,
        version=artifact.version,
        label=ranking[0].label if ranking[0].score >= ABSTAIN_BELOW else None,
        score=ranking[0].score,
        ranking=ranking,
        explanation=explainer_of(artifact).explain(text) if explain else None,
    )


async def answer(site: ConsoleSite, artifact: Artifact) -> None:
    """Answer all requests until cancelled."""
    backend, chance = open_backend("cpu", artifact), random.Random(1)
    consumer, producer = site.cluster.consumer(), site.cluster.producer()
    async with connected(consumer), connected(producer):
        names = [TopicPartition(site.names.requests, number) for number in range(PARTITIONS)]
        consumer.assign(names)
        for name in names:
            consumer.seek(name, 0)
        while True:
            for name, records in (await consumer.fetch(max_records=200, timeout_s=0.2)).items():
                await asyncio.sleep(0.004 + chance.expovariate(150))
                results = [
                    result_of(
                        backend,
                        one.offset,
                        one.value or b"",
                        content_type(one.headers),
                        explain=read_explain(one.headers),
                    )
                    for one in records
                ]
                answers = [Outgoing(encode_result(one)) for one in results]
                await producer.send_batch(site.names.results, name.partition, answers)
