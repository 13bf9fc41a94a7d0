import random
from pathlib import Path

import msgspec

from headrace.config import Settings, load_settings
from headrace.core.fields import Secret
from headrace.demo.setup import as_sets, child_environment, demo_settings, prefix_for
from headrace.demo.versions import learning_settings
from headrace.kafka.brokers import embedded_settings
from headrace.kafka.settings import KafkaSettings

SECURED = KafkaSettings(
    bootstrap="a:1,b:2",
    security_protocol="SASL_PLAINTEXT",
    sasl_username="me",
    sasl_password=Secret("hunter2=,"),
    rebalance_timeout_ms=4_000,
)


def loaded_by_a_child(settings: Settings, environ: dict[str, str]) -> Settings:
    return load_settings(None, child_environment(environ, settings.kafka, Path("t")), as_sets(settings)).settings


def test_a_child_has_the_settings_that_it_was_given() -> None:
    for kafka in (embedded_settings("127.0.0.1:5"), SECURED):
        settings = demo_settings(kafka, "demo-1-", "a model.safetensors")
        assert loaded_by_a_child(settings, {}) == settings


def test_a_trainer_and_workers_that_follow_it_have_the_settings_that_they_were_given() -> None:
    settings = learning_settings(SECURED, "demo-1-", Path("a store"))
    assert loaded_by_a_child(settings, {}) == settings
    assert (settings.worker.model, settings.trainer.group) == ("champion", "demo-1-trainer")


def test_what_the_user_set_for_real_work_does_not_reach_a_child() -> None:
    settings = demo_settings(embedded_settings("127.0.0.1:5"), "demo-1-", "model.safetensors")
    environ = {"HEADRACE_TOPICS__REQUESTS": "orders", "HEADRACE_KAFKA__SASL_PASSWORD": "hunter2", "PATH": "/bin"}
    assert loaded_by_a_child(settings, environ) == settings
    assert child_environment(environ, settings.kafka, Path("t")) == {"PATH": "/bin", "TMPDIR": "t"}


def test_no_secret_is_among_the_arguments() -> None:
    settings = demo_settings(SECURED, "demo-1-", "model.safetensors")
    assert not any("hunter2" in one or "password" in one for one in as_sets(settings))


def test_settings_that_are_the_default_are_not_repeated() -> None:
    assert as_sets(Settings()) == []
    changed = Settings(kafka=msgspec.structs.replace(KafkaSettings(), idempotent=False))
    assert as_sets(changed) == ["kafka.idempotent=false"]


def test_two_runs_have_topics_and_groups_of_their_own() -> None:
    chance = random.Random(0)
    first, second = (demo_settings(SECURED, prefix_for(chance), "model") for _ in range(2))
    assert first.topics.names().requests != second.topics.names().requests
    assert first.worker.group != second.worker.group
