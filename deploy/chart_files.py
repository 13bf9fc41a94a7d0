"""What the chart takes from the code: the topics, the rights of `headrace topics acl`, the settings and their defaults.

python -m deploy.chart_files            # writes files/headrace.json and values.schema.json of deploy/chart
python -m deploy.chart_files --check    # ends with 1 when they are not what would be written
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.commands import gateway, labeller, trainer, worker
from headrace.config.reference import described
from headrace.config.settings import Settings
from headrace.core.fields import Secret, is_secret
from headrace.kafka.acls import Names, Role, rights_of
from headrace_schemas.topics import KAFKA_SEGMENT_MS, REPLICATION, TopicNames, topics

CHART: Final = Path(__file__).with_name("chart")
LEAVES_SERVICE_S: Final = 5
"""How long a gateway goes on after Kubernetes has decided to end it, until every node has stopped sending callers."""

_SHARED_BY_GROUPS: Final = {
    "worker": (("worker", ""),),
    "trainer": (("trainer", ""), ("trainer", "-election")),
    "labeller": (("labeller", ""), ("labeller", "-election")),
    "gateway": (("gateway", ""),),
}
"""The groups of a component: the section whose ``group`` names them, and what stands behind it."""
_USERS: Final = {
    "worker": (Role.WORKER,),
    "trainer": (Role.TRAINER,),
    "labeller": (Role.TEACHER,),
    "gateway": (Role.GATEWAY,),  # and those of gateway.roles
    "topics": (Role.OPERATOR,),
    "producer": (Role.PRODUCER, Role.READER),
    "reader": (Role.READER,),
}
"""A user on the cluster for each component, and one for programs that publish or read, with the roles it has."""
_OWN: Final = {
    "admin": None,
    "gateway": {"host", "port", "tls_certfile", "tls_keyfile"},
    "trainer": {"store", "nodes", "rendezvous", "address", "unauthenticated_exchange"},
    "kafka": {"security_protocol", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_mechanism", "sasl_username"},
    "signing": {"key_file"},
    "teacher": {"labels"},
}
"""Settings that the chart gives itself: None is a whole section."""


def facts() -> dict[str, Any]:
    """What the templates range over."""
    few, many = topics("", 1), topics("", 2)
    return {
        "topics": [
            {
                "field": one.field,
                "name": one.name,
                "title": one.title,
                "grows": other.partitions > one.partitions,
                "config": one.settings(),
                "config_of_few": one.settings(1),
            }
            for one, other in zip(few, many, strict=True)
        ],
        "replication": REPLICATION,
        "kafka_segment_ms": KAFKA_SEGMENT_MS,
        "users": [{"name": name, "roles": roles} for name, roles in _USERS.items()],
        "rights": {role: _rights(role) for role in Role},
        "groups": {
            name: [{"section": section, "suffix": suffix} for section, suffix in groups]
            for name, groups in _SHARED_BY_GROUPS.items()
        },
        "defaults": {
            section: {
                field.name: value
                for field in msgspec.structs.fields(section_type)
                if not is_secret(msgspec.inspect.type_info(field.type))
                and (value := getattr(section_type(), field.name)) is not None
            }
            for section, section_type in ((one.name, one.type) for one in msgspec.structs.fields(Settings))
        },
        "stops": {
            "worker_drains": worker.DRAINS,
            "gateway_seconds": gateway.STOP_S,
            "leaves_service_seconds": LEAVES_SERVICE_S,
            "trainer": trainer.STOP_S,
            "labeller": labeller.STOP_S,
        },
    }


def _rights(role: Role) -> dict[str, tuple[str, ...]]:
    """What ``role`` may do on each topic, by the topic's field; rights on groups are added by the chart."""
    fields = {field: field for field in TopicNames.__struct_fields__}
    rights = rights_of(role, Names(**fields, worker_group="", trainer_groups=()))
    return {right.name: right.operations for right in rights if right.resource == "topic"}


def settings_schema() -> dict[str, Any]:
    """The JSON schema of the settings that may be given: no secret, and nothing that the chart gives itself."""
    sentences = {one.key: one.sentence for one in described()}
    properties = {}
    for section in msgspec.structs.fields(Settings):
        own = _OWN.get(section.name, set())
        if own is None:
            continue
        (_,), components = msgspec.json.schema_components([section.type], schema_hook=_schema_of)
        fields = components[section.type.__name__]["properties"]
        for field in msgspec.structs.fields(section.type):
            if is_secret(msgspec.inspect.type_info(field.type)) or field.name in own:
                del fields[field.name]
                continue
            fields[field.name].pop("default", None)
            fields[field.name]["description"] = sentences[f"{section.name}.{field.name}"]
        properties[section.name] = _map(fields)
    return _map(properties)


def _schema_of(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string"}
    raise NotImplementedError


def _map(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$", "maxLength": 253}
_SWITCH: Final = {"type": "boolean"}
_PORT: Final = {"type": "integer", "minimum": 1, "maximum": 65535}
_ANY_MAP: Final = {"type": "object"}
_ANY_LIST: Final = {"type": "array", "items": {"type": "object"}}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_FROM_KEY: Final = _map({"name": _NAME, "key": {"type": "string", "minLength": 1}})


def _count(least: int, most: int = 100_000) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def values_schema() -> dict[str, Any]:
    """The JSON schema of values.yaml. Helm refuses what does not fit it, naming the value."""
    image = {"repository": {"type": "string", "minLength": 1}, "tag": _TEXT}
    image["digest"] = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    part = {
        "enabled": _SWITCH,
        "resources": _ANY_MAP,
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                # A secret's value would lie in the values and in the release.
                "properties": {
                    "name": {"type": "string", "not": {"pattern": "(PASSWORD|SECRET|TOKEN|API_KEY|SPLIT_KEY)$"}},
                    "value": _TEXT,
                    "valueFrom": _ANY_MAP,
                },
            },
        },
        "nodeSelector": _TEXTS,
        "tolerations": _ANY_LIST,
        "annotations": _TEXTS,
    }
    login = {"kafkaSecret": _NAME, "kafkaUser": _TEXT}
    peers = _map({"ports": {"type": "array", "items": _PORT, "minItems": 1}, "to": _ANY_LIST})
    schema = _map(
        {
            "global": _ANY_MAP,
            "image": _map(
                {
                    **image,
                    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
                    "pullSecrets": {"type": "array", "items": _NAME},
                }
            ),
            "cudaImage": _map(image),
            "settings": settings_schema(),
            "kafka": _map(
                {
                    "auth": {"enum": ["none", "tls", "scram-sha-256", "scram-sha-512", "plain"]},
                    "tls": _SWITCH,
                    "caSecret": _FROM_KEY,
                }
            ),
            "store": _map(
                {
                    "claim": _NAME,
                    "uri": {"type": "string", "pattern": "^((s3|s3a|gs|az|abfs)://.+)?$"},
                    "endpoint": _TEXT,
                    "region": _TEXT,
                    "writeSecret": _NAME,
                    "readSecret": _NAME,
                }
            ),
            "worker": _map({**part, **login, "replicas": _count(1), "cuda": _SWITCH}),
            "trainer": _map(
                {**part, **login, "replicas": _count(1, 10), "signingKey": _FROM_KEY, "splitKey": _FROM_KEY}
            ),
            "labeller": _map({**part, **login, "replicas": _count(1, 10), "apiKey": _FROM_KEY, "labels": _FROM_KEY}),
            "gateway": _map(
                {
                    **part,
                    **login,
                    "replicas": _count(1, 1000),
                    "roles": {"type": "array", "items": {"enum": ["labeller", "operator"]}},
                    "tlsSecret": _NAME,
                    "service": _map({"type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, "port": _PORT}),
                }
            ),
            "topics": _map({**part, **login}),
            "training": _map(
                {
                    **part,
                    "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$"},
                    "nodes": _count(1, 1024),
                    "ranks": _count(1, 1024),
                    "data": _TEXT,
                    "dataClaim": _NAME,
                    "arguments": {"type": "array", "items": _TEXT},
                    "rendezvousPort": _PORT,
                }
            ),
            "networkPolicy": _map(
                {
                    "enabled": _SWITCH,
                    "kafka": peers,
                    "store": peers,
                    "collector": peers,
                    "monitoring": _ANY_LIST,
                    "callers": _ANY_LIST,
                }
            ),
            "podMonitor": _map({"enabled": _SWITCH, "labels": _TEXTS}),
            "strimzi": _map(
                {
                    "topics": _SWITCH,
                    "users": _SWITCH,
                    "cluster": {**_NAME, "minLength": 1},
                    "replicas": _count(1, 100),
                    "readerGroups": {"type": "array", "items": {"type": "string", "minLength": 1}},
                }
            ),
            "keda": _map(
                {
                    "enabled": _SWITCH,
                    "maxReplicas": _count(1),
                    "prometheus": {"type": "string", "pattern": "^https?://"},
                    "selector": _TEXT,
                    "drainSeconds": _count(1, 86_400),
                    "capacity": _count(1, 100_000_000),
                    "authentication": _NAME,
                }
            ),
        }
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def rendered() -> dict[Path, str]:
    """Each file with its content."""
    return {
        CHART / "files" / "headrace.json": json.dumps(msgspec.to_builtins(facts()), indent=1) + "\n",
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` compare; return the exit status."""
    stale = [
        path for path, content in rendered().items() if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    if "--check" not in arguments:
        for path in stale:
            path.write_text(rendered()[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path} is not what `python -m deploy.chart_files` writes; run it\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
