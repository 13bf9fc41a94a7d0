import pytest

from headrace.commands.topics import wanted_topics
from headrace.config import SettingsError, load_settings
from headrace.kafka.interface import TopicState
from headrace.kafka.topics import Drift, plan
from headrace_schemas.topics import REQUESTS, RESULTS

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS


def test_a_retention_that_is_set_is_applied_and_another_one_on_the_cluster_has_drifted() -> None:
    usual = wanted_topics(load_settings(None, {}).settings.topics)
    found = {
        one.name: TopicState(
            name=one.name,
            partitions=one.topic.partitions,
            replication=3,
            config=one.topic.settings() | {"segment.ms": "7"},
        )
        for one in usual
        if one.topic.name
        not in {
            "classify.models",
            "classify.workers",
            "classify.teaching",
            "classify.keys",
            "classify.usage",
            "classify.idempotency",
        }
    }
    wanted = wanted_topics(load_settings(None, {}, [f"topics.requests_retention_ms={HOUR_MS}"]).settings.topics)
    decided = plan([one for one in wanted if one.name in found], found, brokers=3)
    assert decided.drift == (
        Drift(REQUESTS, "retention.ms", str(WEEK_MS), str(HOUR_MS)),
        Drift(REQUESTS, "segment.ms", "7", str(HOUR_MS)),
    )
    (spec,) = [spec for spec in plan(wanted, {}, brokers=3).create if spec.name == REQUESTS]
    assert (spec.config["retention.ms"], spec.config["segment.ms"]) == (str(HOUR_MS), str(HOUR_MS))


@pytest.mark.parametrize(
    "sets",
    [
        [f"topics.results_retention_ms={HOUR_MS}"],
        [f"topics.requests_retention_ms={2 * HOUR_MS}", f"topics.results_retention_ms={HOUR_MS}"],
        [f"topics.requests_retention_ms={2 * WEEK_MS}"],
    ],
)
def test_answers_that_would_be_gone_before_their_requests_are_refused(sets: list[str]) -> None:
    with pytest.raises(SettingsError, match="has to be at least requests_retention_ms"):
        load_settings(None, {}, sets)


def test_answers_may_stay_as_long_as_their_requests_or_longer() -> None:
    sets = [f"topics.{name}_retention_ms={HOUR_MS}" for name in ("requests", "results", "dead_letters")]
    names = load_settings(None, {}, sets).settings.topics.retention_ms()
    assert names == dict.fromkeys([REQUESTS, RESULTS, "classify.dead-letters", "classify.idempotency"], HOUR_MS)
