"""The endpoints for people who label: labels, erasure, reviews; and for operators: aliases that are moved."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from headrace.client.labels import Labelled, label_record, text_ids, tombstone
from headrace.client.reviews import ReviewPublisher, taken_back
from headrace.core.errors import UserError
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.gateway.bodies import parse_place, place_text
from headrace.gateway.calls import Call, json_response
from headrace.gateway.classifying import check_seen
from headrace.gateway.lookup import NotThereError
from headrace.gateway.problems import ProblemError, decode_body, invalid, not_found
from headrace.kafka.interface import (
    Outgoing,
    TopicPartition,
    UnknownTopicError,
    connected,
)
from headrace.kafka.range_reader import read_ranges
from headrace.learning.data.labels import read_labels
from headrace.learning.data.machine_labels import erasure_of, read_machine_labels
from headrace.model.signing import verify
from headrace.registry.aliases import NoSuchVersionError, move, roll_back, set_pin
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import find_version
from headrace_schemas.codec import check_text_size, decode_review, encode_machine_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import BarredText, Review
from headrace_schemas.topics import machine_labels_key

MOST_LABELS = 1000
MOST_REVIEWS = 1000
ERASED_AT_ONCE = asyncio.Semaphore(1)
"""An erasure reads the topics of labels from their beginning, so one at a time does."""

Line = Annotated[str, Meta(min_length=1, max_length=1024)]


class LabelBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A text with its true label. ``id`` replaces and erases it; without, it is made of the text's words.

    ``source`` says how the text was chosen. ``answer`` is the place of an answer to it: then a review is published too.
    """

    text: str
    label: Line
    id: Line | None = None
    source: Line | None = None
    answer: str | None = None


class LabelIds(msgspec.Struct, frozen=True):
    """The ids of labels that were published, in their order."""

    ids: tuple[str, ...]


class Erased(msgspec.Struct, frozen=True):
    """How many labels of people, and of teachers for the same text, were erased."""

    labels: int
    machine_labels: int


class Reviews(msgspec.Struct, frozen=True):
    """The last reviews, the newest first."""

    reviews: tuple[Review, ...]


class MoveBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The ``version`` that an alias is to point at: a name, the beginning of one, or another alias."""

    version: Line
    reason: Line | None = None


class ReasonBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Why, for the record."""

    reason: Line | None = None


_labels = msgspec.json.Decoder(LabelBody | list[LabelBody])
_move = msgspec.json.Decoder(MoveBody)
_reason = msgspec.json.Decoder(ReasonBody)


async def add_labels(call: Call) -> Response:
    """Publish labels to learn from; they count from the next version on."""
    found = decode_body(_labels.decode, await call.body(), '{"text": "...", "label": "..."} or a list of them')
    bodies = found if isinstance(found, list) else [found]
    if not 0 < len(bodies) <= MOST_LABELS:
        raise invalid(f"One call takes 1 to {MOST_LABELS:,} labels.", field="labels", limit=MOST_LABELS)
    reviewed = [await _review_of(call, number, one) for number, one in enumerate(bodies)]
    # The kernel that hashes words is compiled by its first use, which must not hold the event loop.
    ids = await asyncio.to_thread(text_ids, [one.text for one in bodies])
    labels = [_labelled(call, number, one, id_) for number, (one, id_) in enumerate(zip(bodies, ids, strict=True))]
    names = call.gateway.topics
    async with connected(call.gateway.cluster.producer()) as producer:
        await producer.send_many(names.labels, [label_record(one) for one in labels])
    if reviews := [one for one in reviewed if one is not None]:
        publisher = ReviewPublisher(call.gateway.cluster, names.reviews)
        try:
            await publisher.publish(reviews)
        finally:
            await publisher.stop()
    return json_response(LabelIds(tuple(one.id for one in labels)), HTTPStatus.CREATED)


async def erase_label(call: Call) -> Response:
    """Erase a label from all versions to come, with what teachers said of its text, as `headrace labels erase` does."""
    id_ = call.params["id"]
    gateway, names = call.gateway, call.gateway.topics
    async with ERASED_AT_ONCE:
        there = await read_labels(gateway.cluster, names.labels, [id_])
        texts = [one.text for one in there if one.text]
        try:
            held = await read_machine_labels(gateway.cluster, names.machine_labels) if texts else []
        except UnknownTopicError:
            held = []
        erasure = await asyncio.to_thread(erasure_of, texts, held)
        now_ms = gateway.clock.now_ms()
        barred = [BarredText(text_key=key, barred_at_ms=now_ms) for key in erasure.barred] if texts else []
        async with connected(gateway.cluster.producer()) as producer:
            # Barred first: a teacher that is being asked may answer in between.
            records = [Outgoing(encode_machine_label(one), machine_labels_key(one)) for one in barred]
            records += [Outgoing(None, key) for key in erasure.keys]
            if records:
                await producer.send_many(names.machine_labels, records)
            if there:
                await producer.send_many(names.labels, [tombstone(id_, _name_of(call))])
    if not there:
        raise not_found("There is no label with this id.")
    return json_response(Erased(labels=len(there), machine_labels=len(erasure.keys)))


async def reviews(call: Call) -> Response:
    """The last reviews of requests of the caller's tenant."""
    given = call.request.query_params.get("limit", "100")
    most = int(given) if given.isascii() and given.isdigit() and len(given) < 6 else 0
    if not 1 <= most <= MOST_REVIEWS:
        raise invalid(f"limit is a number from 1 to {MOST_REVIEWS}.", field="limit", limit=MOST_REVIEWS)
    found = await _last_reviews(call, most)
    newest = sorted(found, key=lambda one: -one.reviewed_at_ms)
    mine: list[Review] = []
    for one in newest:
        if len(mine) == most:
            break
        if call.identity.everything or await _sees(call, (one.partition, one.offset)):
            mine.append(one)
    return json_response(Reviews(tuple(mine)))


async def move_alias(call: Call) -> Response:
    """Point an alias at a version, whatever the gate said of it; workers that follow it swap at once."""
    body = decode_body(_move.decode, await call.body(), '{"version": "..."}')
    return await _moved(call, body.reason or "over HTTP", version=body.version)


async def change_alias(call: Call) -> Response:
    """Roll an alias back to what it pointed at before, pin it, or let the trainer move it again."""
    content = await call.body()
    body = decode_body(_reason.decode, content, '{"reason": "..."}') if content.strip() else ReasonBody()
    return await _moved(call, body.reason or "over HTTP")


async def _moved(call: Call, reason: str, version: str | None = None) -> Response:
    gateway, alias = call.gateway, call.params["alias"]
    log, name = gateway.models, gateway.model_name
    by = _name_of(call)
    await log.refresh()
    now_ms = gateway.clock.now_ms()
    try:
        match call.params.get("action"):
            case None:
                wanted = find_version(log, name, version or "").version
                record = move(log, name, alias, wanted, reason=reason, now_ms=now_ms, by_hand=True, by=by)
            case "rollback":
                record = roll_back(log, name, alias, reason=reason, now_ms=now_ms, by=by)
            case "pin" | "unpin" as action:
                record = set_pin(log, name, alias, pinned=action == "pin", reason=reason, now_ms=now_ms, by=by)
            case _:
                raise not_found("An alias can be rolled back, pinned and unpinned: rollback, pin, unpin.")
        if (name, record.version) not in log.versions:
            raise NoSuchVersionError(f"Model {name!r} has no version {record.version!r} any more.")
        verify(log.versions[name, record.version], gateway.trusted)
    except UserError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "alias", str(error), field="version") from None
    async with connected(gateway.cluster.producer()) as producer:
        try:
            await ModelsWriter(producer, gateway.topics.models).publish([record])
        except WireError as error:
            raise invalid(str(error), field="alias") from None
    return json_response(record)


def _name_of(call: Call) -> str:
    """Who calls, for the record."""
    return f"API key {call.identity.id}" if call.identity.id else "HTTP without an API key"


def _labelled(call: Call, number: int, body: LabelBody, made: str) -> Labelled:
    where = f"[{number}]."
    try:
        check_text_size(body.text, call.gateway.limits.max_text_bytes)
        name = label_name(body.label)
        if not name:
            raise invalid("The label has no character that is seen.", field=f"{where}label")
        id_ = body.id or made
        if not id_:
            raise invalid("A text without words needs an id.", field=f"{where}id")
        one = Labelled(id_, body.text, name, body.source, call.gateway.clock.now_ms())
        label_record(one)
    except (WireError, DatasetError, UnicodeEncodeError) as error:
        raise invalid(str(error), field=f"{where}text") from None
    return one


async def _review_of(call: Call, number: int, body: LabelBody) -> Review | None:
    if body.answer is None:
        return None
    place = parse_place(body.answer)
    if place is None:
        raise invalid("answer is the place of one, PARTITION@OFFSET.", field=f"[{number}].answer")
    await check_seen(call, place, not_found(f"There is no text at {place_text(place)}, or it is not yours."))
    return Review(
        results=call.gateway.topics.results,
        partition=place[0],
        offset=place[1],
        label=label_name(body.label),
        origin="person",
        reviewed_at_ms=call.gateway.clock.now_ms(),
        by=call.identity.id or None,
    )


async def _last_reviews(call: Call, most: int) -> list[Review]:
    """About the last ``most`` records of each partition, those that are reviews of our answers."""
    topic = call.gateway.topics.reviews
    found: list[Review] = []
    async with connected(call.gateway.cluster.consumer()) as consumer:
        names = [TopicPartition(topic, number) for number in await consumer.partitions_of(topic)]
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        starts = {name: max(begins[name], ends[name] - most) for name in names}
        async for records in read_ranges(consumer, starts, ends):
            for record in records:
                if (place := taken_back(record, call.gateway.topics.results)) is not None:
                    found = [one for one in found if (one.partition, one.offset) != place]
                    continue
                try:
                    review = decode_review(record.value, content_type(record.headers))
                except WireError:  # somebody else wrote here
                    continue
                if review.results == call.gateway.topics.results:
                    found.append(review)
    return found


async def _sees(call: Call, place: tuple[int, int]) -> bool:
    try:
        return call.identity.sees(await call.gateway.lookup.tenant(place))
    except (NotThereError, LookupError):
        return False
