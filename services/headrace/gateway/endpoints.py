"""All that is served, in one table: method, path, who may call it, what answers, and what it takes and gives."""

from __future__ import annotations

from starlette.responses import Response

from headrace.gateway import classifying, faces, labelling, streams
from headrace.gateway.app import Endpoint
from headrace.gateway.bodies import Answer, Answers, ClassifyBody, ClassifyItem
from headrace.gateway.calls import Call
from headrace.gateway.openapi import EVENTS, FILE, JSON, TEXT
from headrace.security.api_keys import KeyRole
from headrace_schemas.records import ModelAlias, Score

CLIENTS = frozenset({KeyRole.CLIENT})
LABELLERS = frozenset({KeyRole.LABELLER})
OPERATORS = frozenset({KeyRole.OPERATOR})
ALL = frozenset(KeyRole)

_SECONDS = {"type": "number", "minimum": 0, "maximum": 300, "default": 0}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": labelling.MOST_REVIEWS, "default": 100}
_PREFER = {"Prefer": "respond-async replies as soon as the texts are published; wait=10 waits so many seconds."}
_ONCE = {
    "Idempotency-Key": "A call with a key that was sent before gets the same answers again, and publishes nothing."
}
_LAST_ID = {"Last-Event-ID": "The id of the last event that was received: the stream goes on behind it."}


async def openapi(call: Call) -> Response:
    """What this gateway serves, as OpenAPI 3.1."""
    del call
    return Response(FILE.read_bytes(), media_type=JSON)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST",
        "/v1/classify",
        CLIENTS,
        classifying.classify,
        "Label one text or many",
        asks=str | ClassifyBody | list[str | ClassifyItem],
        tells=(Answer, Answers),
        statuses=(200, 202),
        headers={**_PREFER, **_ONCE},
        bare=True,
    ),
    Endpoint(
        "GET",
        "/v1/answers/{place}",
        CLIENTS,
        classifying.answer,
        "The answer to one text by its place",
        tells=Answer,
        statuses=(200, 202),
        query={"wait": _SECONDS},
    ),
    Endpoint(
        "GET",
        "/v1/answers",
        CLIENTS,
        streams.stream,
        "Answers as server-sent events",
        media_type=EVENTS,
        query={"from": {"type": "string", "description": "earliest, latest, or a time as ISO 8601."}},
        headers=_LAST_ID,
    ),
    Endpoint(
        "GET",
        "/v1/models",
        ALL,
        classifying.models,
        "The versions, and the aliases that point at them",
        tells=classifying.Models,
    ),
    Endpoint(
        "PUT",
        "/v1/models/aliases/{alias}",
        OPERATORS,
        labelling.move_alias,
        "Point an alias at a version",
        asks=labelling.MoveBody,
        tells=ModelAlias,
    ),
    Endpoint(
        "POST",
        "/v1/models/aliases/{alias}/{action}",
        OPERATORS,
        labelling.change_alias,
        "Roll an alias back, pin or unpin it",
        asks=labelling.ReasonBody,
        tells=ModelAlias,
        optional_body=True,
    ),
    Endpoint(
        "POST",
        "/v1/labels",
        LABELLERS,
        labelling.add_labels,
        "Publish labels to learn from",
        asks=labelling.LabelBody | list[labelling.LabelBody],
        tells=labelling.LabelIds,
        statuses=(201,),
    ),
    Endpoint(
        "DELETE",
        "/v1/labels/{id}",
        LABELLERS,
        labelling.erase_label,
        "Erase a label, and what teachers said of its text",
        tells=labelling.Erased,
    ),
    Endpoint(
        "GET",
        "/v1/reviews",
        LABELLERS | CLIENTS,
        labelling.reviews,
        "The last reviews",
        tells=labelling.Reviews,
        query={"limit": _LIMIT},
    ),
    Endpoint(
        "POST",
        "/predict",
        CLIENTS,
        faces.predict,
        "Label texts, as Text Embeddings Inference does",
        asks=faces.PredictBody,
        headers=_ONCE,
        tells=(list[Score], list[list[Score]]),
    ),
    Endpoint(
        "POST",
        "/models/{name}",
        CLIENTS,
        faces.hugging_face,
        "Label texts, as Hugging Face's inference does",
        asks=faces.HuggingFaceBody,
        headers=_ONCE,
        tells=list[list[Score]],
    ),
    Endpoint("GET", "/v2", ALL, faces.server_metadata, "The server, in OIP", tells=faces.ServerMetadata),
    Endpoint("GET", "/v2/health/live", None, faces.server_live, "Whether the process lives, in OIP", tells=faces.Live),
    Endpoint(
        "GET", "/v2/health/ready", None, faces.server_ready, "Whether calls are answered, in OIP",
        tells=faces.Ready, statuses=(200, 503),
    ),
    *(
        endpoint
        for version in ("", "/versions/{version}")
        for endpoint in (
            Endpoint(
                "GET", f"/v2/models/{{name}}{version}", ALL, faces.model_metadata, "The model, in OIP",
                tells=faces.ModelMetadata,
            ),
            Endpoint(
                "GET", f"/v2/models/{{name}}{version}/ready", ALL, faces.model_ready, "Whether it answers, in OIP",
                tells=faces.Ready, statuses=(200, 503),
            ),
            Endpoint(
                "POST", f"/v2/models/{{name}}{version}/infer", CLIENTS, faces.infer, "Label texts, in OIP",
                asks=faces.InferBody, tells=faces.InferReply, headers=_ONCE,
            ),
        )
    ),
    Endpoint("GET", "/healthz", None, classifying.healthy, "Whether the process lives", media_type=TEXT),
    Endpoint("GET", "/readyz", None, classifying.ready, "Whether calls are answered", media_type=TEXT),
    Endpoint("GET", "/openapi.json", None, openapi, "This document", media_type=JSON),
)  # fmt: skip
