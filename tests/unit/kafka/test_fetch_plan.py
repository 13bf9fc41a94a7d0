"""The plan of a fetch is aiokafka's own, whatever state partitions are in."""

from __future__ import annotations

from types import SimpleNamespace

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.aio.fetch_plan import FetchPlanner

NAMES = [TopicPartition(topic, number) for topic in ("a", "b") for number in range(4)]


class State:
    def __init__(self, position, paused):
        self._position, self._paused = position, paused
        self._resume_fut = self.resume_fut = object()
        self.paused, self.position = paused, position
        self.has_valid_position = position is not None


class Cluster:
    def __init__(self, leaders):
        self._partitions = {}
        self.leaders = leaders

    def leader_for_partition(self, name):
        return self.leaders[name]

    def broker_metadata(self, node):
        return object()


def shown(plan):
    fetches, resets, wait_s, missing, resumes = plan
    asked = {
        node: (
            {(topic, *one) for topic, parts in request.topics for one in parts},
            request._max_wait_ms,
            request._min_bytes,
            request._max_bytes,
            request._isolation_level,
            request._rack_id,
        )
        for node, request in fetches
    }
    return asked, {node: sorted(names) for node, names in resets.items()}, wait_s, missing, set(resumes)


def fetcher_of(leaders, backoffs, in_flight, preferred):
    found = SimpleNamespace(
        _client=SimpleNamespace(cluster=Cluster(leaders)),
        _records={name: SimpleNamespace(calculate_backoff=lambda s=s: s) for name, s in backoffs.items()},
        _in_flight=in_flight,
        _preferred_read_replica={name: (9, float("inf")) for name in preferred},
        _max_partition_fetch_bytes=11,
        _fetch_max_wait_ms=12,
        _fetch_min_bytes=13,
        _fetch_max_bytes=14,
        _isolation_level=1,
        _fetcher_timeout=0.2,
        _client_rack=None,
    )
    found._select_read_replica = lambda name: Fetcher._select_read_replica(found, name)
    found._get_actions_per_node = lambda assignment: Fetcher._get_actions_per_node(found, assignment)
    return found


def assignment_of(states):
    return SimpleNamespace(tps=frozenset(states), state_value=states.get)


NODES = st.integers(1, 3)


@given(
    names=st.sets(st.sampled_from(NAMES), max_size=8),
    leaders=st.fixed_dictionaries(dict.fromkeys(NAMES, NODES | st.sampled_from([1, 1, -1, None]))),
    positions=st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 5) | st.sampled_from([1, None]))),
    paused=st.sets(st.sampled_from(NAMES), max_size=3),
    backoffs=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0, 0.05, 0.1]), max_size=3),
    in_flight=st.sets(NODES, max_size=2),
    preferred=st.sets(st.sampled_from(NAMES), max_size=1),
)
def test_a_plan_is_the_one_that_aiokafka_makes(names, leaders, positions, paused, backoffs, in_flight, preferred):
    fetcher = fetcher_of(leaders, backoffs, in_flight, preferred)
    assignment = assignment_of({name: State(positions[name], name in paused) for name in names})
    planner = FetchPlanner(fetcher)
    assert shown(planner(assignment)) == shown(fetcher._get_actions_per_node(assignment))


def test_a_leader_that_moves_and_another_assignment_are_noticed():
    fetcher = fetcher_of(dict.fromkeys(NAMES, 1), {}, set(), ())
    planner = FetchPlanner(fetcher)
    both = assignment_of({name: State(0, False) for name in NAMES[:2]})
    cluster = fetcher._client.cluster
    assert [node for node, _ in planner(both)[0]] == [1]
    cluster.leaders, cluster._partitions = dict.fromkeys(NAMES, 2), {}
    assert [node for node, _ in planner(both)[0]] == [2]
    one = assignment_of({NAMES[0]: State(0, False)})
    assert [request.topics for _, request in planner(one)[0]] == [[("a", [(0, 0, 11)])]]
    cluster.leaders, cluster._partitions = dict.fromkeys(NAMES), {}
    assert planner(one)[3]
