"""What clients of other servers speak: Text Embeddings Inference, Hugging Face's inference and Open Inference Protocol.

Each is on its own path, because they read the same JSON differently: ``["a", "b"]`` is a pair to TEI and two texts to
Hugging Face. Unknown fields are ignored, as those servers do. A batch is never too large for being larger than theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version as version_of
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from headrace.gateway.batches import PENDING
from headrace.gateway.bodies import Answer, ClassifyItem
from headrace.gateway.calls import Call, json_response
from headrace.gateway.classifying import check_answered, check_count, count_texts
from headrace.gateway.problems import ProblemError, decode_body, invalid, not_found
from headrace_schemas.records import Score


class PredictBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """TEI's body: one text, a pair (a list of one or two), or a list of lists, which is a batch.

    A list of more than two texts can't be a pair, so it is a batch. The two texts of a pair are labelled as one, with a
    space between them. ``truncate`` cuts texts that are too long, at the end that ``truncation_direction`` says.
    """

    inputs: str | list[str | list[str]]
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "left", "Right", "right"] = "Right"


class HuggingFaceParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``top_k`` is how many labels the answer has; ``function_to_apply`` can be softmax alone."""

    top_k: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    function_to_apply: str | None = None


class HuggingFaceBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hugging Face's body: one text or many. The reply has a list of labels for each, also for one."""

    inputs: str | list[str]
    parameters: HuggingFaceParameters | None = None


class InferInput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tensor of texts: ``datatype`` is BYTES, ``data`` has as many texts as ``shape`` says, nested or not."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class InferOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An output that is wanted: label or score."""

    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The Open Inference Protocol's body: one input, the texts."""

    inputs: list[InferInput]
    outputs: list[InferOutput] = []
    id: str | None = None
    parameters: dict[str, Any] = {}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An output: of BYTES texts, of FP64 numbers."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: tuple[str | float, ...]


class InferReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``label`` has each text's label, "" where its score is below the threshold; ``score`` its score."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str | None = None


class TensorKind(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output, as metadata has it; -1 is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorKind, ...]
    outputs: tuple[TensorKind, ...]


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


class Live(msgspec.Struct, frozen=True):
    """Whether the process lives."""

    live: bool


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether calls are answered, or a model's are."""

    ready: bool
    name: str | None = None


_predict = msgspec.json.Decoder(PredictBody)
_hugging_face = msgspec.json.Decoder(HuggingFaceBody)
_infer = msgspec.json.Decoder(InferBody)
_INPUTS = (TensorKind(name="text", datatype="BYTES", shape=(-1,)),)
_OUTPUTS = (
    TensorKind(name="label", datatype="BYTES", shape=(-1,)),
    TensorKind(name="score", datatype="FP64", shape=(-1,)),
)


async def predict(call: Call) -> Response:
    """Label texts as TEI's `/predict` does: one input is answered by a flat list, a batch by a nested one."""
    body = await _read(call, _predict, 'TEI\'s {"inputs": "a text"} or {"inputs": [["a text"], ["another"]]}')
    if body.raw_scores:
        raise invalid("headrace answers with scores from 0 to 1 alone, and has no raw ones.", field="raw_scores")
    single = isinstance(body.inputs, str) or (len(body.inputs) <= 2 and all(isinstance(x, str) for x in body.inputs))
    texts = [_one(body.inputs)] if single else [_one(one) for one in body.inputs]
    if body.truncate:
        most, left = call.gateway.limits.max_text_bytes, body.truncation_direction.lower() == "left"
        texts = [_cut(text, most, left=left) for text in texts]
    ranked = [_ranked(one) for one in await _label(call, texts, "inputs")]
    return json_response(ranked[0] if single else ranked)


async def hugging_face(call: Call) -> Response:
    """Label texts as Hugging Face's inference does."""
    _check_name(call)
    body = await _read(call, _hugging_face, 'Hugging Face\'s {"inputs": "a text"} or {"inputs": ["a text", "another"]}')
    parameters = body.parameters or HuggingFaceParameters()
    if parameters.function_to_apply not in (None, "softmax"):
        raise invalid(
            "Scores are those of softmax; no other function is applied.", field="parameters.function_to_apply"
        )
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    answers = await _label(call, texts, "inputs")
    return json_response([_ranked(one)[: parameters.top_k] for one in answers])


async def infer(call: Call) -> Response:
    """Label texts as the Open Inference Protocol has it."""
    _check_version(call)
    if call.headers.get("inference-header-content-length") is not None:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "binary",
            "Tensors are read as JSON alone: set binary_data to false (tritonclient: set_data_from_numpy(..., "
            "binary_data=False), and binary_data=False at the outputs).",
            field="Inference-Header-Content-Length",
        )
    form = '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a text"]}]}'
    body = await _read(call, _infer, form)
    texts = _texts_of(body, form)
    answers = await _label(call, texts, "inputs[0].data")
    shape = tuple(body.inputs[0].shape)
    tensors = {
        "label": Tensor(name="label", shape=shape, datatype="BYTES", data=tuple(one.label or "" for one in answers)),
        "score": Tensor(name="score", shape=shape, datatype="FP64", data=tuple(one.score or 0.0 for one in answers)),
    }
    wanted = [one.name for one in body.outputs] or list(tensors)
    if unknown := next((name for name in wanted if name not in tensors), None):
        raise invalid(f"There is no output {unknown!r}; the outputs are label and score.", field="outputs")
    reply = InferReply(
        model_name=call.gateway.model_name,
        model_version=next((one.version for one in answers if one.version), ""),
        outputs=tuple(tensors[name] for name in wanted),
        id=body.id,
    )
    return json_response(reply)


async def server_metadata(call: Call) -> Response:
    """What the server is, in the Open Inference Protocol."""
    del call
    return json_response(ServerMetadata(name="headrace", version=version_of("headrace")))


async def server_live(call: Call) -> Response:
    """Whether the process lives, in the Open Inference Protocol."""
    del call
    return json_response(Live(live=True))


async def server_ready(call: Call) -> Response:
    """Whether calls are answered, in the Open Inference Protocol."""
    ready = call.gateway.unready is None
    return json_response(Ready(ready), HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def model_metadata(call: Call) -> Response:
    """What the model takes and gives."""
    _check_version(call)
    gateway = call.gateway
    versions = [one.version for one in gateway.models.versions.values() if one.name == gateway.model_name]
    return json_response(
        ModelMetadata(
            name=gateway.model_name, versions=tuple(versions), platform="headrace", inputs=_INPUTS, outputs=_OUTPUTS
        )
    )


async def model_ready(call: Call) -> Response:
    """Whether the model's calls are answered."""
    _check_version(call)
    ready = call.gateway.unready is None
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response(Ready(ready, call.gateway.model_name), status)


async def _read(call: Call, decoder: msgspec.json.Decoder[Any], form: str) -> Any:
    return decode_body(decoder.decode, await call.body(), form)


async def _label(call: Call, texts: Sequence[str], field: str) -> list[Answer]:
    """The answers to ``texts``, all of them `ok`. Raises ProblemError otherwise, naming the first that is not."""
    if not texts:
        raise invalid("There are no texts.", field=field)
    check_count(call, len(texts))
    batch = await call.gateway.classify(
        call.identity,
        [ClassifyItem(text=text) for text in texts],
        timeout_s=call.gateway.settings.timeout,
        expires=True,
        waits=True,
        once=call.once,
        trace=call.trace,
    )
    answers = [batch.answer(index) for index in range(len(texts))]
    count_texts(call, answers)
    call.gateway.check_published(answers)
    check_answered(call, answers)
    for number, one in enumerate(answers):
        if one.status not in ("ok", PENDING):
            where = field if len(texts) == 1 else f"{field}[{number}]"
            raise ProblemError(
                HTTPStatus.GATEWAY_TIMEOUT if one.status == "expired" else HTTPStatus.UNPROCESSABLE_ENTITY,
                one.status,
                f"The text at {where} has no label: {one.reason or one.status}.",
                field=where,
                wait_s=call.gateway.wait_s if one.status == "expired" else None,
                answers=answers,
            )
    return answers


def _ranked(answer: Answer) -> tuple[Score, ...]:
    """The labels of an answer, the best first: those that the workers rank, or the one that it has."""
    if answer.ranking:
        return answer.ranking
    return () if answer.label is None else (Score(answer.label, answer.score or 0.0),)


def _one(given: str | list[str] | list[str | list[str]]) -> str:
    """A text, or a pair as one text."""
    if isinstance(given, str):
        return given
    if not given or len(given) > 2:
        raise invalid(f"One input is a text or a pair of two, and this list has {len(given)}.", field="inputs")
    return " ".join(one for one in given if isinstance(one, str))


def _cut(text: str, most: int, *, left: bool) -> str:
    """``text`` within ``most`` bytes of UTF-8, without a part of a character."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    return (data[-most:] if left else data[:most]).decode("utf-8", "ignore")


def _texts_of(body: InferBody, form: str) -> list[str]:
    if len(body.inputs) != 1:
        raise invalid(f"There are {len(body.inputs)} inputs; the one that is taken is text: {form}.", field="inputs")
    given = body.inputs[0]
    if given.datatype.upper() != "BYTES":
        raise invalid(f"Texts have the datatype BYTES, not {given.datatype[:20]!r}.", field="inputs[0].datatype")
    texts: list[str] = []
    waiting: list[Any] = list(reversed(given.data))
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += reversed(one)
        elif isinstance(one, str):
            texts.append(one)
        else:
            raise invalid("The data of BYTES are strings.", field="inputs[0].data")
    size = 1
    for length in given.shape:
        size *= length
    if size != len(texts):
        raise invalid(f"The shape means {size} texts, and there are {len(texts)}.", field="inputs[0].shape")
    return texts


def _check_name(call: Call) -> None:
    if call.params["name"] != call.gateway.model_name:
        raise not_found(f"The model here is {call.gateway.model_name!r} (worker.model_name).")


def _check_version(call: Call) -> None:
    _check_name(call)
    wanted = call.params.get("version")
    if wanted is None:
        return
    champion = call.gateway.models.aliases.get((call.gateway.model_name, "champion"))
    if champion is None or champion.version != wanted:
        by = "no version, as there is no alias champion" if champion is None else repr(champion.version)
        raise not_found(f"Workers answer by {by}: that version alone can be asked.")
