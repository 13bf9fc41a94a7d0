"""How long the topics keep texts."""

from __future__ import annotations

import pytest

from headrace_schemas import topics
from headrace_schemas.topics import DEAD_LETTERS, KAFKA_SEGMENT_MS, LABELS, REQUESTS, RESULTS

HOUR_MS = 3_600_000


def settings_with(retention_ms: dict[str, int]) -> dict[str, dict[str, str]]:
    return {topic.name.removeprefix("p."): topic.settings() for topic in topics("p.", 4, retention_ms)}


def test_a_retention_that_is_set_bounds_how_long_a_record_stays_and_leaves_other_topics_alone() -> None:
    usual, found = settings_with({}), settings_with({REQUESTS: HOUR_MS})
    assert found[REQUESTS] == {**usual[REQUESTS], "retention.ms": str(HOUR_MS), "segment.ms": str(HOUR_MS)}
    assert {name: found[name] for name in usual if name != REQUESTS} == {
        name: usual[name] for name in usual if name != REQUESTS
    }


def test_a_long_retention_makes_no_longer_segments_than_kafka_does() -> None:
    found = settings_with({RESULTS: 10 * KAFKA_SEGMENT_MS, DEAD_LETTERS: 1})
    assert found[RESULTS]["segment.ms"] == str(KAFKA_SEGMENT_MS)
    assert found[DEAD_LETTERS]["segment.ms"] == found[DEAD_LETTERS]["retention.ms"] == "1"


def test_a_compacted_topic_has_no_retention() -> None:
    with pytest.raises(ValueError, match=r"classify\.labels keeps the last record of each key"):
        settings_with({LABELS: HOUR_MS})
