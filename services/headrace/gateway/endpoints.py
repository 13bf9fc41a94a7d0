"""All that is served, in one table: method, path, who may call it, and what answers."""

from __future__ import annotations

from headrace.gateway import classifying
from headrace.gateway.app import Endpoint
from headrace.security.api_keys import KeyRole

CLIENTS = frozenset({KeyRole.CLIENT})
ALL = frozenset(KeyRole)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/classify", CLIENTS, classifying.classify, "Label one text or many"),
    Endpoint("GET", "/v1/answers/{place}", CLIENTS, classifying.answer, "The answer to one text by its place"),
    Endpoint("GET", "/v1/models", ALL, classifying.models, "The versions, and the aliases that point at them"),
    Endpoint("GET", "/healthz", None, classifying.healthy, "Whether the process lives"),
    Endpoint("GET", "/readyz", None, classifying.ready, "Whether calls are answered"),
)
