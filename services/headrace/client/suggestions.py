"""The requests that are worth a person's label, with their texts: for `labels suggest` and for the console alike.

:mod:`headrace.core.selection` decides which and in what order. Here the answers are read, and what has a label, was
erased or comes twice is left out.
"""

from __future__ import annotations

import msgspec

from headrace.client.comparison import last_results
from headrace.config.settings import Settings
from headrace.core.fields import Start
from headrace.core.selection import Candidate, Why, best_of, distinct, in_order, reason_for
from headrace.files.annotations import Task
from headrace.kafka.interface import Cluster, NotAuthorizedError, UnknownTopicError
from headrace.kafka.range_reader import read_texts
from headrace.learning.data.labels import read_labels
from headrace.learning.data.machine_labels import is_barred, read_barred
from headrace.learning.data.validation import NO_WORDS, text_keys
from headrace_schemas.paths import compile_shape

AT_ONCE = 4
"""So many times more texts are read than are still wanted: some are gone, equal to others, or labelled already."""


class Found(msgspec.Struct, frozen=True):
    """What was found: ``answers`` were looked at, ``candidates`` of them are in the queue, ``known`` texts of those
    have a label or are equal to another one, ``erased`` were erased, and ``gone`` have no request any more. ``unread``
    says why nobody knows which texts were erased, "" where that is known.
    """

    tasks: list[Task]
    answers: int = 0
    candidates: int = 0
    known: int = 0
    gone: int = 0
    erased: int = 0
    unread: str = ""


async def find_tasks(
    cluster: Cluster, settings: Settings, why: Why, count: int, start: Start, last: int, beside: str | None
) -> Found:
    """The ``count`` requests of a queue that are most worth a label. Raises a KafkaError."""
    names = settings.topics.names()
    answers = await last_results(cluster, names.results, last=last, start=start)
    others = {} if beside is None else await last_results(cluster, beside, last=last, start=start)
    ordered = in_order(
        [Candidate(place[0], answer, others.get(place)) for place, answer in answers.items()], why, topic=names.requests
    )
    if not ordered:
        return Found([], len(answers))
    known = await _known_keys(cluster, settings)
    barred, unread = await barred_texts(cluster, settings)
    decode = compile_shape(settings.requests)
    consumer = cluster.consumer()
    tasks: list[Task] = []
    passed = gone = erased = looked = 0
    try:
        await consumer.start()
        while len(tasks) < count and looked < len(ordered):
            chunk = ordered[looked : looked + AT_ONCE * (count - len(tasks))]
            looked += len(chunk)
            places = [(one.partition, one.answer.offset) for one in chunk]
            texts = await read_texts(consumer, names.requests, places, decode)
            there = [one for one in chunk if (one.partition, one.answer.offset) in texts]
            gone += len(chunk) - len(there)
            said = [texts[one.partition, one.answer.offset] for one in there]
            keyed = zip(there, said, text_keys(said), strict=True)
            kept = [(one, key) for one, text, key in keyed if not is_barred(text, key, barred)]
            erased += len(there) - len(kept)
            there, keys = [one for one, _ in kept], [key for _, key in kept]
            left = list(distinct(list(zip(there, keys, strict=True)), keys, known))[: count - len(tasks)]
            known.update(key for _, key in left)
            passed += len(there) - len(left)
            tasks += [_task(one, texts[one.partition, one.answer.offset], why) for one, key in left if key != NO_WORDS]
    finally:
        await consumer.stop()
    known_or_twice = passed if len(tasks) < count else 0
    return Found(tasks, len(answers), len(ordered), known_or_twice, gone, erased, unread)


def _task(candidate: Candidate, text: str, why: Why) -> Task:
    answer = candidate.answer
    return Task(
        at=f"{candidate.partition}@{answer.offset}",
        text=text,
        version=answer.version,
        why=reason_for(candidate, why),
        source=why,
        answered=answer.label,
        guessed=best_of(answer),
        score=answer.score,
        id=answer.id,
        blind=why is Why.RANDOM,
    )


async def barred_texts(cluster: Cluster, settings: Settings) -> tuple[frozenset[str], str]:
    """The texts that were erased, and why that is not known, if so. They may still be among the requests."""
    try:
        return await read_barred(cluster, settings.topics.names().machine_labels), ""
    except UnknownTopicError:
        return frozenset(), ""
    except NotAuthorizedError as error:
        return frozenset(), str(error)


async def _known_keys(cluster: Cluster, settings: Settings) -> set[bytes]:
    """The keys of all texts that have a label of a person."""
    there = await read_labels(cluster, settings.topics.names().labels)
    return set(text_keys([one.text for one in there if one.error is None]))
