"""The chart, as helm renders it: safe pods, members within partitions, ends that are long enough, least rights."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import chart_files, kustomized
from headrace.commands import gateway, labeller, trainer, worker
from headrace.commands.topics import acl_names, wanted_topics
from headrace.config.loading import load_settings
from headrace.config.settings import Settings
from headrace.kafka.acls import Role, rights_of
from tests.support.charts import CASES, helm, of_kind, pods, rendered, template

ROOT = Path(__file__).parents[3]


def component(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def settings_of(manifests: list[dict[str, Any]], folder) -> Settings:
    (made,) = of_kind(manifests, "ConfigMap")
    path = folder / "headrace.toml"
    path.write_text(made["data"]["headrace.toml"], encoding="utf-8")
    return load_settings(path, {}).settings


def test_what_the_chart_takes_from_the_code_is_current() -> None:
    assert chart_files.main(["--check"]) == 0


@pytest.mark.parametrize("case", CASES)
def test_the_settings_of_the_values_are_those_that_headrace_reads(case: str, tmp_path) -> None:
    settings = settings_of(rendered(case), tmp_path)
    assert settings.log.format == "json"
    if case == "all":
        assert settings.trainer.labels == ("billing", 'say "hi"')
        assert settings.trainer.sources == {"person": 1.0, "machine": 0.5}
        assert settings.topics.results_retention_ms == 14 * 24 * 3600 * 1000
        assert settings.worker.drain_timeout == 12.5


def test_with_everything_off_there_is_nothing_but_the_settings() -> None:
    assert [one["kind"] for one in rendered("none")] == ["ConfigMap"]


def test_with_everything_on_every_component_has_its_pod_its_account_and_its_network() -> None:
    manifests = rendered("all")
    parts = {"worker", "trainer", "labeller", "gateway", "training"}
    assert set(pods(manifests)) == parts
    for kind in ("ServiceAccount", "NetworkPolicy"):
        assert {component(one) for one in of_kind(manifests, kind)} == parts
    assert {component(one) for one in of_kind(manifests, "PodDisruptionBudget")} == parts - {"training"}


@pytest.mark.parametrize("case", ["all", "claim"])
def test_every_pod_is_restricted_and_writes_only_where_it_has_to(case: str) -> None:
    """Kubernetes' restricted pod security standard, and a root file system that is read-only."""
    for name, pod in pods(rendered(case)).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in (*pod["initContainers"], *pod["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
        writable = {mount["name"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= ({"scratch", "store"} if name in ("trainer", "training") else {"scratch"})


@pytest.mark.parametrize("case", ["all", "claim"])
def test_a_group_never_has_more_members_than_partitions(case: str, tmp_path) -> None:
    manifests = rendered(case)
    partitions = settings_of(manifests, tmp_path).topics.partitions
    (workers,) = [one for one in of_kind(manifests, "StatefulSet", "Deployment") if component(one) == "worker"]
    # A Deployment would start a pod's successor while it drains.
    assert workers["kind"] == "StatefulSet"
    (scaled,) = of_kind(manifests, "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in workers["spec"]
    assert 1 <= scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"] <= partitions


@pytest.mark.parametrize("more", [(), ("--set-json", "settings.worker.drain_timeout=77,settings.gateway.drain=99.5")])
def test_kubernetes_waits_longer_than_a_component_takes_to_end(more: tuple[str, ...], tmp_path) -> None:
    manifests = rendered("all", *more)
    settings = settings_of(manifests, tmp_path)
    ends = {
        "worker": worker.DRAINS * settings.worker.drain_timeout,
        "gateway": settings.gateway.drain + gateway.STOP_S,
        "trainer": trainer.STOP_S,
        "labeller": labeller.STOP_S,
    }
    for name, pod in pods(manifests).items():
        before = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert (before > 0) == (name == "gateway"), "nobody calls the others, so they drain at once"
        assert pod["terminationGracePeriodSeconds"] > before + ends.get(name, 0)


def test_a_component_reads_no_secret_but_its_own() -> None:
    read = {}
    for name, pod in pods(rendered("all")).items():
        volumes = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        container = pod["containers"][0]
        variables = {
            one["valueFrom"]["secretKeyRef"]["name"]
            for one in container["env"]
            if "secretKeyRef" in one.get("valueFrom", {})
        }
        read[name] = (volumes - {"kafka-cluster-ca-cert"}) | variables
    assert read == {
        "worker": {"headrace-worker", "s3-read"},
        "trainer": {"headrace-trainer", "s3-write", "signing", "split"},
        "labeller": {"headrace-labeller", "s3-read", "teacher"},
        "gateway": {"headrace-gateway", "s3-read", "gateway-tls"},
        "training": {"s3-write"},
    }


def test_strimzi_gives_each_user_what_topics_acl_prints(tmp_path) -> None:
    manifests = rendered("all")
    names = acl_names(settings_of(manifests, tmp_path), ["reports"])
    roles = {
        "headrace-worker": [Role.WORKER],
        "headrace-trainer": [Role.TRAINER],
        "headrace-labeller": [Role.TEACHER],
        "headrace-gateway": [Role.GATEWAY, Role.LABELLER],
        "headrace-producer": [Role.PRODUCER, Role.READER],
        "headrace-reader": [Role.READER],
    }
    for user in of_kind(manifests, "KafkaUser"):
        given = {
            (rule["resource"]["type"], rule["resource"]["name"], operation)
            for rule in user["spec"]["authorization"]["acls"]
            for operation in rule["operations"]
        }
        printed = {
            (right.resource, right.name, operation)
            for role in roles.pop(user["metadata"]["name"])
            for right in rights_of(role, names)
            for operation in right.operations
        }
        if user["metadata"]["name"] == "headrace-producer":
            printed = {one for one in printed if one[0] == "topic"}  # groups are the readers' to share
        assert given == printed
    assert not roles


def test_strimzi_makes_the_topics_that_topics_apply_makes(tmp_path) -> None:
    manifests = rendered("all")
    wanted = wanted_topics(settings_of(manifests, tmp_path).topics)
    made = {one["spec"]["topicName"]: one["spec"] for one in of_kind(manifests, "KafkaTopic")}
    assert made == {
        one.name: {
            "topicName": one.name,
            "partitions": one.topic.partitions,
            "replicas": 3,
            "config": one.topic.settings(3),
        }
        for one in wanted
    }


def test_machines_of_a_training_are_reached_by_each_other_alone() -> None:
    manifests = rendered("all")
    (policy,) = [one for one in of_kind(manifests, "NetworkPolicy") if component(one) == "training"]
    itself = [{"podSelector": policy["spec"]["podSelector"]}]
    assert policy["spec"]["ingress"] == [{"from": itself}]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (job,) = [one for one in of_kind(manifests, "Job") if component(one) == "training"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    (service,) = [one for one in of_kind(manifests, "Service") if component(one) == "training"]
    meeting = arguments[arguments.index("--rdzv-endpoint") + 1]
    assert meeting == f"{job['metadata']['name']}-0.{service['metadata']['name']}:29400"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]


def test_only_the_gateway_is_called_and_only_its_callers_call_it() -> None:
    for policy in of_kind(rendered("all"), "NetworkPolicy"):
        called = [rule for rule in policy["spec"]["ingress"] if {"port": "http"} in rule.get("ports", ())]
        assert bool(called) == (component(policy) == "gateway")
        assert all(rule["from"] for rule in called)


def test_who_traces_reaches_the_collector_and_nobody_else_does() -> None:
    reaching = {
        component(policy)
        for policy in of_kind(rendered("all"), "NetworkPolicy")
        if any({"port": 4318, "protocol": "TCP"} in rule.get("ports", ()) for rule in policy["spec"]["egress"])
    }
    assert reaching == {"worker", "gateway", "labeller"}
    off = rendered("all", "--set", "settings.tracing.endpoint=null")
    assert "4318" not in str(of_kind(off, "NetworkPolicy"))


def test_keda_scales_by_seconds_to_drain_and_by_the_lag_of_one_topic() -> None:
    (scaled,) = of_kind(rendered("all"), "ScaledObject")
    drain, lag = scaled["spec"]["triggers"]
    assert drain["type"] == "prometheus"
    assert lag["type"] == "kafka"
    # KEDA's fallback works for triggers of this kind alone.
    assert {drain["metricType"], lag["metricType"]} == {"AverageValue"}
    said = lag["metadata"]
    assert said["topic"] == "team-a.tickets"
    assert said["consumerGroup"] == "tickets"
    assert said["offsetResetPolicy"] == "earliest"
    assert said["allowIdleConsumers"] == said["scaleToZeroOnInvalidOffset"] == "false"
    assert int(said["lagThreshold"]) == 20_000 * 60
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert [(policy["type"], policy["value"]) for policy in down["policies"]] == [("Percent", 50)]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("kafka.auth=none", None),
        ("kafka.tls=true", None),
        ("kafka.tls=true,kafka.caSecret.name=ca", {"ca"}),
        ("kafka.auth=tls,kafka.caSecret.name=ca,worker.kafkaSecret=login", {"ca", "cert", "key"}),
        ("kafka.auth=plain,worker.kafkaSecret=login", {"password", "username"}),
    ],
)
def test_keda_logs_in_as_a_worker_does(values: str, told: set[str] | None) -> None:
    manifests = rendered("none", "--set", f"worker.enabled=true,keda.enabled=true,{values}")
    lag = of_kind(manifests, "ScaledObject")[0]["spec"]["triggers"][1]
    found = of_kind(manifests, "TriggerAuthentication")
    assert ("authenticationRef" in lag) == bool(found) == (told is not None)
    for one in found:
        sources = (*one["spec"]["secretTargetRef"], *one["spec"].get("env", ()))
        assert {source["parameter"] for source in sources} == told


def test_what_only_new_requests_get_is_scaled_by_new_requests_too() -> None:
    (scaled,) = of_kind(rendered("all", "--set", "settings.worker.start_from=latest"), "ScaledObject")
    assert scaled["spec"]["triggers"][1]["metadata"]["offsetResetPolicy"] == "latest"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("worker.replicas=two",), "got string, want integer"),
        (("worker.replicas=0",), "minimum"),
        (("worker.replicas=13",), "13 workers and 12 partitions"),
        (("settings.topics.partitions=1",), "2 workers and 1 partitions"),
        (("keda.enabled=true", "keda.maxReplicas=13"), "lower keda.maxReplicas"),
        (("keda.enabled=true", "keda.maxReplicas=1"), "the first is above the second"),
        (("keda.enabled=true", "worker.enabled=false"), "worker.enabled is false"),
        (("settings.worker.drane_timeout=3",), "'drane_timeout' not allowed"),
        (("settings.kafka.sasl_password=x",), "'sasl_password' not allowed"),
        (("settings.trainer.nodes=2",), "'nodes' not allowed"),
        (("worker.env[0].name=HEADRACE_KAFKA__SASL_PASSWORD", "worker.env[0].value=x"), "/worker/env/0/name"),
        (("image.digest=latest",), "/image/digest"),
        (("trainer.enabled=true",), "set store.claim or store.uri"),
        (("store.claim=a", "store.uri=s3://a"), "two places"),
        (("store.uri=http://a",), "/store/uri"),
        (("strimzi.topics=true",), "both create the topics"),
        (("strimzi.users=true",), "kafka.auth has to be tls or scram-sha-512"),
        (("kafka.auth=plain",), "kafkaSecret has to name the secret"),
        (("training.enabled=true", "store.uri=s3://a"), "training.data has to name"),
        (
            ("training.enabled=true", "training.data=/x", "store.uri=s3://a", "networkPolicy.enabled=false"),
            "needs networkPolicy.enabled",
        ),
        (("workers.replicas=3",), "'workers' not allowed"),
    ],
    ids=lambda given: given[-1] if isinstance(given, tuple) else "",
)
def test_odd_values_are_refused_with_words(more: tuple[str, ...], words: str) -> None:
    trains = any(one.startswith(("trainer.", "training.", "store.")) for one in more)
    done = template(None, "--set", ",".join((*more, *(() if trains else ("trainer.enabled=false",)))))
    assert done.returncode != 0
    assert words in done.stderr


def test_no_secret_is_a_value() -> None:
    """The schema has none of the settings that are secrets, so none can be written into a release."""
    schema = msgspec.json.encode(chart_files.settings_schema()).decode()
    for name in ("sasl_password", "ssl_key_password", "split_key", "api_key", "tls_key_password"):
        assert f'"{name}"' not in schema


def test_what_kustomize_reads_is_what_helm_renders() -> None:
    helm()  # skips
    assert kustomized.main(["--check"]) == 0


def test_the_settings_are_toml_whatever_their_type() -> None:
    (made,) = of_kind(rendered("all"), "ConfigMap")
    assert tomllib.loads(made["data"]["headrace.toml"])["trainer"]["budget_points"] == 0.25


def test_helm_does_with_the_commands_of_the_page_what_it_says() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (install,) = re.findall(r"^    helm install (.*)$", page, re.MULTILINE)
    ((refused, said),) = re.findall(r"^\$ helm template (.*)\n((?:.*\n)*?)```", page, re.MULTILINE)

    def run(arguments: str) -> subprocess.CompletedProcess[str]:
        command = [helm(), "template", "--kube-version", kustomized.KUBERNETES, *shlex.split(arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run(install).returncode == 0
    assert " ".join(said.split()) in " ".join(run(refused).stderr.split())
