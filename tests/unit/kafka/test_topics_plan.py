from __future__ import annotations

import msgspec
import pytest

from headrace.kafka.interface import TopicState
from headrace.kafka.topics import Drift, Growth, WantedTopic, carry_out, look, plan
from headrace_schemas.topics import DEAD_LETTERS, LABELS, MODELS, REQUESTS, RESULTS, topics
from tests.support.memory_kafka import MemoryCluster

PREFIX = "team."


def wanted(partitions: int = 4) -> list[WantedTopic]:
    return [WantedTopic(PREFIX + topic.name, topic) for topic in topics("", partitions)]


def as_wanted(partitions: int = 4, replication: int = 3) -> dict[str, TopicState]:
    """A cluster on which everything is as it should be."""
    return {
        one.name: TopicState(
            name=one.name,
            partitions=one.topic.partitions,
            replication=replication,
            config={**one.topic.settings(replication), "segment.bytes": "1"},
        )
        for one in wanted(partitions)
    }


def changed(found: dict[str, TopicState], topic: str, **values: object) -> dict[str, TopicState]:
    return found | {PREFIX + topic: msgspec.structs.replace(found[PREFIX + topic], **values)}


def test_nothing_is_to_do_where_all_is_as_it_should_be():
    decided = plan(wanted(), as_wanted(), brokers=3)
    assert (decided.create, decided.grow, decided.drift, decided.shortcoming) == ((), (), (), None)


def test_missing_topics_are_created_results_first_and_requests_last():
    decided = plan(wanted(), {}, brokers=3)
    names = [spec.name.removeprefix(PREFIX) for spec in decided.create]
    assert set(names[:2]) == {RESULTS, DEAD_LETTERS}
    assert names[-1] == REQUESTS
    assert set(names) == {topic.name for topic in topics()}


def test_three_brokers_give_three_copies_of_which_two_acknowledge():
    for spec in plan(wanted(), {}, brokers=5).create:
        assert (spec.replication, spec.config["min.insync.replicas"]) == (3, "2")
        assert spec.config["unclean.leader.election.enable"] == "false"


@pytest.mark.parametrize(("brokers", "said"), [(1, "1 broker"), (2, "2 brokers")])
def test_a_small_cluster_gives_what_it_can_and_says_what_the_promise_lacks(brokers, said):
    decided = plan(wanted(), {}, brokers=brokers)
    assert {spec.replication for spec in decided.create} == {brokers}
    assert {spec.config["min.insync.replicas"] for spec in decided.create} == {"1"}
    assert said in (decided.shortcoming or "")


def test_results_get_as_many_partitions_as_the_requests_that_are_there_already():
    found = {PREFIX + REQUESTS: msgspec.structs.replace(as_wanted()[PREFIX + REQUESTS], partitions=12)}
    created = {spec.name.removeprefix(PREFIX): spec.partitions for spec in plan(wanted(), found, brokers=3).create}
    assert (created[RESULTS], created[DEAD_LETTERS], created[LABELS]) == (12, 12, 4)


def test_growth_begins_with_results_and_ends_with_requests():
    decided = plan(wanted(6), as_wanted(4), brokers=3)
    assert {growth.topic for growth in decided.grow[:2]} == {PREFIX + RESULTS, PREFIX + DEAD_LETTERS}
    assert decided.grow[-1] == Growth(PREFIX + REQUESTS, 6)
    assert len(decided.grow) == 3
    assert Drift(PREFIX + REQUESTS, "partitions", "4", "6") in decided.drift


@pytest.mark.parametrize("topic", [RESULTS, DEAD_LETTERS])
def test_results_or_dead_letters_with_fewer_partitions_than_requests_have_drifted(topic):
    found = changed(as_wanted(), topic, partitions=2)
    decided = plan(wanted(), found, brokers=3)
    assert decided.drift == (Drift(PREFIX + topic, "partitions", "2", "4"),)
    assert decided.grow == (Growth(PREFIX + topic, 4),)


@pytest.mark.parametrize("topic", [RESULTS, DEAD_LETTERS])
def test_results_and_dead_letters_grow_after_requests_that_another_tool_grew(topic):
    decided = plan(wanted(4), changed(as_wanted(4), REQUESTS, partitions=7), brokers=3)
    assert Growth(PREFIX + topic, 7) in decided.grow


def test_more_results_partitions_than_needed_are_no_drift():
    assert plan(wanted(), changed(as_wanted(), RESULTS, partitions=9), brokers=3).drift == ()


def test_a_topic_of_labels_keeps_its_partitions_so_that_no_key_moves():
    decided = plan(wanted(8), as_wanted(8) | {PREFIX + LABELS: as_wanted(3)[PREFIX + LABELS]}, brokers=3)
    assert (decided.grow, decided.drift) == ((), ())


def test_a_topic_of_models_with_two_partitions_has_drifted():
    decided = plan(wanted(), changed(as_wanted(), MODELS, partitions=2), brokers=3)
    assert decided.drift == (Drift(PREFIX + MODELS, "partitions", "2", "1"),)
    assert decided.grow == ()


def test_fewer_copies_than_the_cluster_could_keep_have_drifted():
    decided = plan(wanted(), changed(as_wanted(), REQUESTS, replication=1), brokers=3)
    assert decided.drift == (Drift(PREFIX + REQUESTS, "replication", "1", "3"),)


def test_each_setting_that_differs_is_named_with_both_values():
    found = as_wanted()
    config = dict(found[PREFIX + REQUESTS].config) | {"retention.ms": "60000"}
    del config["message.timestamp.type"]
    decided = plan(wanted(), changed(found, REQUESTS, config=config), brokers=3)
    assert set(decided.drift) == {
        Drift(PREFIX + REQUESTS, "retention.ms", "60000", str(7 * 24 * 3600 * 1000)),
        Drift(PREFIX + REQUESTS, "message.timestamp.type", "not set", "LogAppendTime"),
    }


async def test_a_cluster_that_was_set_up_has_nothing_left_to_do(memory_cluster: MemoryCluster):
    admin = memory_cluster.admin()
    await carry_out(admin, await look(admin, wanted()), grow=False)
    after = await look(admin, wanted())
    assert (after.create, after.drift) == ((), ())


async def test_partitions_are_added_only_when_asked_for(memory_cluster: MemoryCluster):
    admin = memory_cluster.admin()
    await carry_out(admin, await look(admin, wanted(2)), grow=False)
    await carry_out(admin, await look(admin, wanted(5)), grow=False)
    assert len(memory_cluster.topic(PREFIX + REQUESTS).partitions) == 2
    await carry_out(admin, await look(admin, wanted(5)), grow=True)
    assert len(memory_cluster.topic(PREFIX + REQUESTS).partitions) == 5
    assert len(memory_cluster.topic(PREFIX + LABELS).partitions) == 2
