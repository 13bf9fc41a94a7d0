"""Clients of other servers, real ones where there are some, against the gateway."""

from __future__ import annotations

import asyncio
from typing import Any

from huggingface_hub import InferenceClient

from tests.support.gateways import RunningGateway, label_of
from tests.support.waiting import until


async def predict(gateway: RunningGateway, inputs: Any, **more: Any) -> Any:
    reply = await gateway.http.post("/predict", json={"inputs": inputs, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_tei_predict_takes_every_form_of_its_inputs(gateway: RunningGateway) -> None:
    # As in its documentation: curl 127.0.0.1:8080/predict -X POST -d '{"inputs":"I like you."}'
    flat = await predict(gateway, "I like you.")
    assert [set(one) for one in flat] == [{"label", "score"}] * 3
    assert flat[0]["label"] == label_of("I like you.")
    assert (await predict(gateway, ["I like you."])) == flat
    nested = await predict(gateway, [["I like you."], ["I like pineapples"]], truncate=False)
    assert [one[0]["label"] for one in nested] == [label_of("I like you."), label_of("I like pineapples")]
    pair = await predict(gateway, ["I like", "you."])
    assert pair[0]["label"] == label_of("I like you.")
    pairs = await predict(gateway, [["I like", "you."], "alone"])
    assert [one[0]["label"] for one in pairs] == [label_of("I like you."), label_of("alone")]
    many = await predict(gateway, [f"text {number}" for number in range(100)])
    assert [one[0]["label"] for one in many] == [label_of(f"text {number}") for number in range(100)]


async def test_tei_predict_truncates_when_it_is_told_to_and_says_what_it_can_not(gateway: RunningGateway) -> None:
    long = "ä" * 40_000
    refused = await gateway.http.post("/predict", json={"inputs": long})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert "65536" in refused.json()["error"]
    cut = await predict(gateway, long, truncate=True)
    assert cut[0]["label"] == label_of("ä" * 32_768)
    left = await predict(gateway, "b" + "a" * 70_000, truncate=True, truncation_direction="Left")
    assert left[0]["label"] == label_of("a" * 65_536)
    for body, said in [
        ({"inputs": "a", "raw_scores": True}, "raw"),
        ({"inputs": []}, "has 0"),
        ({"inputs": [[]]}, "pair"),
        ({"inputs": [["a", "b", "c"]]}, "pair"),
        ({"input": "a"}, "inputs"),
        ({"inputs": "fail"}, "told to fail"),
    ]:
        reply = await gateway.http.post("/predict", json=body)
        assert reply.status_code == 422, body
        assert said in reply.json()["error"], body


async def test_hugging_faces_own_client_gets_labels(gateway: RunningGateway) -> None:
    client = InferenceClient(model=f"{gateway.address}/models/default", token="hr_any")  # noqa: S106 - asks for no key
    found = await asyncio.to_thread(client.text_classification, "I like you", top_k=2)
    assert found[0].label == label_of("I like you")
    assert len(found) == 2
    assert 0 < found[0].score <= 1


async def test_hugging_face_replies_with_a_list_for_each_text(gateway: RunningGateway) -> None:
    reply = await gateway.http.post("/models/default", json={"inputs": ["a", "b"], "parameters": {"top_k": 1}})
    assert [[label["label"] for label in one] for one in reply.json()] == [[label_of("a")], [label_of("b")]]
    single = await gateway.http.post("/models/default", json={"inputs": "a", "options": {"wait_for_model": True}})
    assert len(single.json()) == 1
    assert (await gateway.http.post("/models/other", json={"inputs": "a"})).status_code == 404
    refused = await gateway.http.post(
        "/models/default", json={"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}
    )
    assert refused.json()["field"] == "parameters.function_to_apply"


def tensor(data: list[Any], shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": shape or [len(data)], "data": data, **more}


async def test_a_client_of_the_open_inference_protocol_goes_its_whole_way(gateway: RunningGateway) -> None:
    await gateway.site.add_version("v1")
    http = gateway.http
    assert (await http.get("/v2/health/live")).json() == {"live": True}
    assert (await http.get("/v2/health/ready")).json() == {"ready": True}
    assert (await http.get("/v2")).json()["name"] == "headrace"

    async def versions() -> Any:
        return (await http.get("/v2/models/default")).json()["versions"]

    assert await until(versions) == ["v1"]
    metadata = (await http.get("/v2/models/default/versions/v1")).json()
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert (await http.get("/v2/models/default/ready")).json() == {"ready": True, "name": "default"}
    for path in ("/v2/models/default/infer", "/v2/models/default/versions/v1/infer"):
        reply = await http.post(path, json={"id": "42", "inputs": [tensor(["a", "b"])]})
        found = reply.json()
        assert (found["model_name"], found["model_version"], found["id"]) == ("default", "v1", "42")
        label, score = found["outputs"]
        assert (label["datatype"], label["shape"], label["data"]) == ("BYTES", [2], [label_of("a"), label_of("b")])
        assert (score["datatype"], score["data"]) == ("FP64", [0.5, 0.5])
    shaped = await http.post(
        "/v2/models/default/infer", json={"inputs": [tensor([["a"], ["b"]], [2, 1])], "outputs": [{"name": "label"}]}
    )
    assert [(one["name"], one["shape"]) for one in shaped.json()["outputs"]] == [("label", [2, 1])]


async def test_what_the_open_inference_protocol_allows_and_headrace_can_not_is_told(gateway: RunningGateway) -> None:
    for inputs, field in [
        ([tensor(["a"], [2])], "inputs[0].shape"),
        ([tensor([1])], "inputs[0].data"),
        ([{**tensor(["a"]), "datatype": "FP32"}], "inputs[0].datatype"),
        ([], "inputs"),
        ([tensor(["a"]), tensor(["b"])], "inputs"),
    ]:
        reply = await gateway.http.post("/v2/models/default/infer", json={"inputs": inputs})
        assert (reply.status_code, reply.json()["field"]) == (422, field)
    binary = await gateway.http.post(
        "/v2/models/default/infer", content=b"{}", headers={"inference-header-content-length": "2"}
    )
    assert binary.status_code == 415
    assert (await gateway.http.post("/v2/models/default/versions/v9/infer", json={})).status_code == 404
    assert (await gateway.http.get("/v2/models/other")).status_code == 404
