"""The plan of a fetch is aiokafka's own, whatever state partitions are in."""

from __future__ import annotations

from types import SimpleNamespace

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.aio.fetch_plan import MANY, QUIET_S, FetchPlanner
from headrace.kafka.aio.fetch_sessions import Quiet

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


MANY_NAMES = [TopicPartition("many", number) for number in range(MANY)]


class Many:
    """A planner of so many partitions of one broker, with a clock that is turned by hand."""

    def __init__(self, names=MANY_NAMES):
        self.now_s = 0.0
        self.states = {name: State(0, False) for name in names}
        self.in_flight = set()
        self.records = {}
        self.fetcher = fetcher_of(dict.fromkeys(names, 1), {}, self.in_flight, ())
        self.fetcher._records = self.records
        self.assignment = assignment_of(self.states)
        self.planner = FetchPlanner(self.fetcher, lambda: self.now_s)

    def plan(self):
        """What is asked of each node, as partitions with their positions."""
        return {
            node: {number: at for _, asked in request.topics for number, at, _ in asked}
            for node, request in self.planner(self.assignment)[0]
        }

    def bring(self, *numbers):
        for number in numbers:
            self.states[MANY_NAMES[number]]._position += 1

    def busy_alone(self):
        """Partition 0 alone has brought something lately, so the next plan divides it from all others."""
        self.plan()
        self.now_s = QUIET_S - 1
        self.bring(0)
        self.plan()
        self.now_s = QUIET_S


def test_partitions_that_bring_nothing_are_asked_for_aside_until_they_bring_something():
    many = Many()
    assert set(many.plan()) == {1}
    many.now_s = QUIET_S - 1
    many.bring(0, 1)
    assert len(many.plan()[1]) == MANY
    many.now_s = QUIET_S
    many.in_flight.add(1)
    # The fetch that names all is under way, and those that are quiet are asked for aside already.
    assert many.plan() == {Quiet(1): dict.fromkeys(range(2, MANY), 0)}
    many.in_flight.clear()
    assert many.plan() == {1: {0: 1, 1: 1}, Quiet(1): dict.fromkeys(range(2, MANY), 0)}
    many.in_flight.add(1)
    many.bring(2)
    # Its broker's busy session can't be told of it now.
    assert many.plan()[Quiet(1)] == dict.fromkeys(range(2, MANY), 0) | {2: 1}
    many.in_flight.clear()
    many.in_flight.add(Quiet(1))
    assert many.plan() == {1: {0: 1, 1: 1, 2: 1}}
    many.in_flight.clear()
    assert many.plan() == {1: {0: 1, 1: 1, 2: 1}, Quiet(1): dict.fromkeys(range(3, MANY), 0)}


def test_few_partitions_and_those_that_were_just_given_are_asked_for_together():
    few = Many(MANY_NAMES[:-1])
    few.now_s = 2 * QUIET_S
    assert set(few.plan()) == {1}
    many = Many()
    many.now_s = 2 * QUIET_S
    assert set(many.plan()) == {1}


def test_what_came_and_is_not_taken_holds_up_its_own_session_alone():
    many = Many()
    many.busy_alone()
    many.plan()
    many.records[MANY_NAMES[3]] = SimpleNamespace(calculate_backoff=lambda: 0.1)
    assert set(many.plan()) == {1}
    many.records[MANY_NAMES[0]] = SimpleNamespace(calculate_backoff=lambda: 0.05)
    *_, wait_s, _, _ = many.planner(many.assignment)
    assert (many.plan(), wait_s) == ({}, 0.05)


def test_new_metadata_leave_quiet_partitions_quiet():
    many = Many()
    many.busy_alone()
    before = many.plan()
    many.fetcher._client.cluster._partitions = {}
    assert many.plan() == before == {1: {0: 1}, Quiet(1): dict.fromkeys(range(1, MANY), 0)}


@given(st.data())
def test_a_partition_is_asked_for_or_waits_for_one_fetch(data):
    many = Many()
    named = {}
    for _ in range(data.draw(st.integers(1, 30))):
        many.now_s += data.draw(st.sampled_from([0.1, 1.0, QUIET_S]))
        many.bring(*data.draw(st.sets(st.integers(0, MANY - 1), max_size=4)))
        for node in data.draw(st.sets(st.sampled_from([1, Quiet(1)]))):
            many.in_flight.discard(node)
        for node, asked in many.plan().items():
            many.in_flight.add(node)
            named[node] = asked
        at = {name.partition: state._position for name, state in many.states.items()}
        for number, position in at.items():
            asked = [node for node in many.in_flight if number in named[node]]
            # At its position, or at an earlier one of a fetch that returns at once because there is more.
            assert asked, f"{number} at {position}"
