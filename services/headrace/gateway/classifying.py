"""The endpoints of headrace's own that label texts: `/v1/classify`, `/v1/answers/PLACE`, `/v1/models`, health."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from starlette.responses import PlainTextResponse, Response

from headrace.gateway.batches import LOST, PENDING, Batch, Place
from headrace.gateway.bodies import (
    Answer,
    Answers,
    BadBodyError,
    Wanted,
    answer_of,
    parse_classify,
    parse_place,
    parse_text,
    place_text,
)
from headrace.gateway.calls import Call, json_response
from headrace.gateway.guessing import address_of
from headrace.gateway.lookup import NotThereError
from headrace.gateway.problems import ProblemError, bad_body, invalid, not_found, retry_headers

_RESPOND_ASYNC = re.compile(r"(^|[,\s])respond-async($|[,;\s])", re.IGNORECASE)
_WAIT = re.compile(r"(?:^|[,\s])wait\s*=\s*\"?([0-9]{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version. ``aliases`` are those that point at it; workers answer with what ``champion`` points at."""

    version: str
    labels: tuple[str, ...]
    created_at_ms: int
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    threshold: float | None = None


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of model ``name``, the newest first."""

    name: str
    versions: tuple[Model, ...]


async def classify(call: Call) -> Response:
    """Label one text or many; with `Prefer: respond-async` say only where each is."""
    wanted = await _wanted(call)
    settings = call.gateway.settings
    if not wanted.items:
        raise invalid("There are no texts.", field="texts")
    check_count(call, len(wanted.items))
    prefer = ", ".join(call.request.headers.getlist("prefer")) if "prefer" in call.headers else ""
    at_once = _RESPOND_ASYNC.search(prefer) is not None
    wait = _WAIT.search(prefer)
    timeout_s = wanted.timeout or (float(wait[1]) if wait and int(wait[1]) else None)
    if timeout_s is not None and timeout_s > settings.longest_timeout and not at_once:
        raise invalid(
            "A call waits no longer (gateway.longest_timeout); `Prefer: respond-async` does not wait.",
            field="timeout",
            limit=settings.longest_timeout,
        )
    batch = await call.gateway.classify(
        call.identity,
        wanted.items,
        timeout_s=settings.timeout if at_once or timeout_s is None else timeout_s,
        expires=wanted.timeout is not None or not at_once,
        explains=wanted.explain,
        waits=not at_once,
        once=call.once,
        trace=call.trace,
    )
    replayed = {"idempotent-replayed": "true"} if batch.replayed else {}
    answers = tuple(batch.answer(index, item.ranking) for index, item in enumerate(wanted.items))
    count_texts(call, answers)
    call.gateway.check_published(answers)
    if at_once:
        headers = {"preference-applied": "respond-async", **replayed, **retry_headers(call.gateway.wait_s)}
        if wanted.single:
            headers["location"] = f"/v1/answers/{answers[0].place}"
        return json_response(answers[0] if wanted.single else Answers(answers), HTTPStatus.ACCEPTED, headers)
    check_answered(call, answers)
    return json_response(answers[0] if wanted.single else Answers(answers), headers=replayed)


def check_count(call: Call, texts: int) -> None:
    """Raise ProblemError where a call has more texts than it may."""
    if texts > (most := call.gateway.settings.max_texts):
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-many",
            f"There are {texts:,} texts; one call may have {most:,} (gateway.max_texts).",
            field="texts",
            limit=most,
        )


def count_texts(call: Call, answers: Sequence[Answer]) -> None:
    """Count what became of a call's texts."""
    for status, count in Counter(one.status for one in answers).items():
        call.gateway.metrics.texts(status, count)


def check_answered(call: Call, answers: Sequence[Answer]) -> None:
    """Raise ProblemError where texts have no answer yet: it has those that there are, and the places of the others."""
    pending = sum(one.status == PENDING for one in answers)
    if not pending:
        return
    detail = (
        f"Of {len(answers)} texts {pending} have no answer yet. They were accepted: ask for each by its place at "
        "/v1/answers/PLACE."
    )
    if call.gateway.unready is not None:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "draining", detail, wait_s=1.0, answers=answers)
    raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, "timeout", detail, wait_s=call.gateway.wait_s, answers=answers)


async def answer(call: Call) -> Response:
    """The answer to the text at a place; with `wait` seconds it is waited for."""
    gateway = call.gateway
    wait_s = call.seconds("wait", default=0.0, most=gateway.settings.longest_timeout)
    place = parse_place(call.params["place"])
    if place is None:
        raise not_found("A place is PARTITION@OFFSET, as 3@17.")
    nothing = not_found(f"There is no text at {place_text(place)}, or it is not yours.")
    guesser = call.identity.id or address_of(call.request.client)
    gateway.guessed_places.check(guesser)
    try:
        return await _answer_at(call, place, wait_s, nothing)
    except ProblemError as problem:
        if problem is nothing:
            gateway.guessed_places.wrong(guesser)
        raise


async def _answer_at(call: Call, place: Place, wait_s: float, nothing: ProblemError) -> Response:
    gateway = call.gateway
    known = await check_seen(call, place, nothing)
    batch = Batch(1)
    batch.places[0] = place
    if wait_s:
        # Read from now on, and only then looked up: the answer is seen in one of both ways.
        await gateway.follower.begin([place[0]])
        gateway.follower.wait(*place, batch)
    try:
        found = await gateway.lookup.answer(place)
        if found is None and wait_s:
            await gateway.wait_for(batch, wait_s)
    except NotThereError:
        if not known:
            raise nothing from None
        return json_response(Answer(status=LOST, place=place_text(place), reason="later texts were answered"))
    finally:
        gateway.follower.forget(batch)
    if found is not None:
        if not known and not call.identity.sees(found.tenant):
            raise nothing
        return json_response(answer_of(found.result, place))
    told = batch.answer(0)
    if told.status == PENDING:
        return json_response(told, HTTPStatus.ACCEPTED, retry_headers(gateway.wait_s))
    return json_response(told)


async def check_seen(call: Call, place: tuple[int, int], nothing: ProblemError) -> bool:
    """Raise ``nothing`` unless the request at ``place`` is the caller's to see.

    False where retention has deleted it: then its answer alone says whose it was.
    """
    try:
        tenant = await call.gateway.lookup.tenant(place)
    except NotThereError:
        raise nothing from None
    except LookupError:
        return False
    if not call.identity.sees(tenant):
        raise nothing
    return True


async def models(call: Call) -> Response:
    """The versions of the model, as the log has them."""
    log, name = call.gateway.models, call.gateway.model_name
    versions = sorted((one for one in log.versions.values() if one.name == name), key=lambda one: -one.created_at_ms)
    aliases = [one for one in log.aliases.values() if one.name == name]
    found = tuple(
        Model(
            version=one.version,
            labels=one.labels,
            created_at_ms=one.created_at_ms,
            aliases=tuple(sorted(alias.alias for alias in aliases if alias.version == one.version)),
            metrics=one.metrics,
            threshold=one.threshold,
        )
        for one in versions
    )
    return json_response(Models(name=name, versions=found))


async def healthy(call: Call) -> Response:
    """Whoever gets this answer knows that the event loop goes on."""
    del call
    return PlainTextResponse("ok\n")


async def ready(call: Call) -> Response:
    """Whether calls are answered; why not is for the log and the admin port, which not everybody reaches."""
    if call.gateway.unready is None:
        return PlainTextResponse("ok\n")
    raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "unready", "No calls are answered now.", wait_s=1.0)


async def _wanted(call: Call) -> Wanted:
    body = await call.body()
    try:
        return parse_text(body) if call.content_type == "text/plain" else parse_classify(body)
    except BadBodyError as error:
        raise bad_body(error) from None
