"""Topics and keys: the rules that the answer log and the compacted topics rest on."""

from __future__ import annotations

import msgspec
import pytest

from headrace_schemas import (
    Attempt,
    BadKeyError,
    BarredText,
    MachineLabel,
    MaxBatch,
    ModelAlias,
    ModelVersion,
    ResultsClaim,
    Topic,
    Training,
    TrainingOrder,
    TrainingState,
    Verdict,
    alias_key,
    api_key_key,
    attempt_key,
    barred_key,
    certificate_key,
    claim_key,
    idempotent_call_key,
    label_rule_key,
    labeller_key,
    machine_label_key,
    machine_labels_key,
    max_batch_key,
    models_key,
    order_key,
    review_key,
    spending_key,
    text_key,
    text_lease_key,
    threshold_key,
    topics,
    training_key,
    usage_key,
    verdict_key,
    version_key,
    workers_key,
)


def by_name(prefix: str = "", partitions: int = 4) -> dict[str, Topic]:
    return {topic.name.removeprefix(prefix): topic for topic in topics(prefix, partitions)}


def test_a_prefix_renames_every_topic_and_changes_nothing_else() -> None:
    plain, staging = topics(), topics("staging.")
    assert [topic.name for topic in staging] == ["staging." + topic.name for topic in plain]
    assert [topic.settings() for topic in staging] == [topic.settings() for topic in plain]


@pytest.mark.parametrize("partitions", [1, 12])
def test_results_have_as_many_partitions_as_requests_and_models_and_workers_have_one(partitions: int) -> None:
    found = by_name(partitions=partitions)
    assert found["classify.requests"].partitions == partitions
    assert found["classify.results"].partitions >= partitions
    assert found["classify.models"].partitions == found["classify.workers"].partitions == 1


def test_results_are_never_compacted_and_labels_models_and_workers_are() -> None:
    policies = {name: topic.settings()["cleanup.policy"] for name, topic in by_name().items()}
    assert policies == {
        "classify.requests": "delete",
        "classify.results": "delete",
        "classify.dead-letters": "delete",
        "classify.labels": "compact",
        "classify.models": "compact",
        "classify.workers": "compact",
        "classify.machine-labels": "compact",
        "classify.reviews": "delete",
        "classify.teaching": "compact",
        "classify.keys": "compact",
        "classify.usage": "compact",
        "classify.idempotency": "compact,delete",
    }


def test_the_broker_sets_the_time_of_requests() -> None:
    assert by_name()["classify.requests"].settings()["message.timestamp.type"] == "LogAppendTime"


def test_an_answer_and_a_dead_letter_fit_where_their_request_fitted() -> None:
    most = {name: int(topic.settings().get("max.message.bytes", 0)) for name, topic in by_name().items()}
    assert most["classify.results"] > most["classify.requests"] > 0
    assert most["classify.dead-letters"] > most["classify.requests"]


def test_answers_outlive_their_requests_because_workers_resume_from_them() -> None:
    found = by_name()
    requests, results = found["classify.requests"].retention_ms, found["classify.results"].retention_ms
    assert requests is not None
    assert results is not None
    assert results >= requests
    assert found["classify.labels"].settings()["retention.ms"] == "-1"


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_the_promise_is_set_on_every_topic_as_far_as_the_cluster_can_keep_it(replication: int, in_sync: str) -> None:
    for topic in topics():
        settings = topic.settings(replication)
        assert settings["min.insync.replicas"] == in_sync
        assert settings["unclean.leader.election.enable"] == "false"


@pytest.mark.parametrize("prefix", ["bad/", "a b", "ü", "x" * 227, "x\n"])
def test_a_prefix_that_kafka_would_refuse_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="topic prefix"):
        topics(prefix)


def test_the_longest_prefix_gives_names_that_kafka_takes() -> None:
    assert max(len(topic.name) for topic in topics("x" * 226)) == 249


def test_a_topic_has_at_least_one_partition() -> None:
    with pytest.raises(ValueError, match="at least one"):
        topics(partitions=0)


def test_keys_of_models_name_what_they_keep() -> None:
    version = ModelVersion(name="news", version="v1", uri="u", sha256="s", size=1, labels=("a",), created_at_ms=0)
    alias = ModelAlias(name="news", alias="champion", version="v1", moved_at_ms=0)
    assert models_key(version) == version_key("news", "v1") == b"version/news/v1"
    assert models_key(alias) == alias_key("news", "champion") == b"alias/news/champion"
    verdict = Verdict(name="news", version="v1", promoted=True, reason="r", decided_at_ms=0)
    training = Training(name="news", id="t", state=TrainingState.RUNNING, reason="r", begun_at_ms=0, offsets=())
    order = TrainingOrder(name="news", ordered_at_ms=0, reason="r")
    assert models_key(verdict) == verdict_key("news", "v1") == b"verdict/news/v1"
    assert models_key(training) == training_key("news") == b"training/news"
    assert models_key(order) == order_key("news") == b"order/news"


def test_keys_of_workers_name_what_they_keep_and_no_two_processes_share_one_for_a_claim() -> None:
    copied = ResultsClaim(results="classify.results", requests="r", group="g", claimed_at_ms=0)
    claim = msgspec.structs.replace(copied, claimer="5f2b", max_batch=1024)
    attempt = Attempt(results="classify.results", partition=3, offset=0, through=1, process="p")
    raised = MaxBatch(results="classify.results", max_batch=2048, raised_at_ms=0)
    assert workers_key(copied) == models_key(copied) == claim_key("classify.results") == b"claim/classify.results"
    assert workers_key(claim) == claim_key("classify.results", "5f2b") == b"claim/classify.results/5f2b"
    assert workers_key(attempt) == attempt_key("classify.results", 3) == b"attempt/classify.results/3"
    assert workers_key(raised) == max_batch_key("classify.results", 2048) == b"max-batch/classify.results/2048"


def test_keys_of_machine_labels_reviews_and_teaching_name_what_they_keep_and_hold_no_text() -> None:
    text = "Où est mon colis ?"
    key = text_key(text)
    label = MachineLabel(text=text, teacher="encoder-3f2a", labelled_at_ms=0)
    assert len(key) == 32
    assert machine_labels_key(label) == machine_label_key(text, "encoder-3f2a") == f"label/{key}/encoder-3f2a".encode()
    assert machine_labels_key(BarredText(text_key=key, barred_at_ms=0)) == barred_key(text) == f"barred/{key}".encode()
    assert review_key("classify.results", 3, 17) == b"classify.results/3/17"
    assert spending_key("tickets", "2026-01-01", "5f2b") == b"spending/tickets/2026-01-01/5f2b"
    assert api_key_key("5f2b9c01") == b"key/5f2b9c01"
    assert idempotent_call_key("ab", "cd") == b"call/ab/cd"
    assert text_lease_key("ab", "cd") == b"lease/ab/cd"
    assert usage_key("5f2b", "2026-01-31", "p-1") == b"usage/5f2b/2026-01-31/p-1"
    assert labeller_key("tickets") == b"labeller/tickets"
    assert certificate_key("news", "v1") == b"certificate/news/v1"
    assert threshold_key("news", "v1") == b"threshold/news/v1"
    assert label_rule_key("news", "a/b ü") == f"label-rule/news/{text_key('a/b ü')}".encode()


def test_a_text_has_one_key_whichever_way_its_accents_are_written() -> None:
    assert text_key("Caf\u00e9") == text_key("Cafe\u0301") != text_key("Cafe")


@pytest.mark.parametrize("part", ["", "a/b", "a b", "é", "x" * 250])
def test_a_part_that_would_blur_two_keys_is_refused(part: str) -> None:
    with pytest.raises(BadKeyError, match="name"):
        version_key(part, "v1")
    with pytest.raises(BadKeyError, match="alias"):
        alias_key("news", part)
    with pytest.raises(BadKeyError, match="results"):
        claim_key(part)
    with pytest.raises(BadKeyError, match="claimer"):
        claim_key("classify.results", part)
