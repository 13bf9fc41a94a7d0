"""Letters that an attacker wrote: whoever may write the dead-letters topic can write any of them."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from headrace.client.dead_letters import DIFFERENT, FOREIGN, REPEATED, UNCONFIRMED, UNREADABLE
from headrace.commands import dead_letters
from headrace.commands.dead_letters import TargetError, targets_of
from headrace.config import Settings
from headrace.kafka.dead_letters import DeadLetterSettings, dead_letter, keep_whole, keeping
from headrace.kafka.interface import FetchedRecord, NotAuthorizedError, Outgoing, TopicPartition, TopicSpec
from headrace.security.keys import SEALING, PrivateKey, make_key, public_key_text, read_key
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.turned_loop import TurnedClock, run_turned

SETTINGS = Settings()
NAMES = SETTINGS.topics.names()
OTHERS = "tenant-b.classify.requests"
REQUEST = FetchedRecord(NAMES.requests, 1, 0, 5, b"k", b'{"text":1}', (("tenant", b"shop"),))
LABEL = FetchedRecord(NAMES.labels, 1, 0, 5, b"id-1", b"{rubbish", ())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(TurnedClock())
    monkeypatch.setattr(dead_letters, "cluster_of", lambda _: cluster)
    for name in (*msgspec.structs.astuple(NAMES), OTHERS):
        cluster.create_topic(TopicSpec(name=name, partitions=2))
    for record in (REQUEST, LABEL):
        append(cluster, record.topic, Outgoing(record.value, record.key, record.headers))
    return cluster


def append(cluster: MemoryCluster, topic: str, *records: Outgoing) -> None:
    cluster.log(TopicPartition(topic, 1)).append_batch(list(records), 0)


def letter_of(record: FetchedRecord, *, keep: Any = keep_whole, attempt: int | None = None, **changed: Any) -> Outgoing:
    """The dead letter of ``record``, with what an attacker ``changed`` in it."""
    forged = msgspec.structs.replace(record, **changed)
    made = dead_letter(forged, stage="decode", error="bad-type", message="text is no text", keep=keep)
    if attempt is None:
        return made
    headers = tuple((name, b"%d" % attempt if name.endswith(".attempt") else value) for name, value in made.headers)
    return msgspec.structs.replace(made, headers=headers)


def replayed(
    cluster: MemoryCluster,
    letter: Outgoing,
    *,
    places: tuple[tuple[int, int], ...] = (),
    to: str | None = None,
    unverified: bool = False,
    key: PrivateKey | None = None,
) -> dead_letters._Done:
    append(cluster, NAMES.dead_letters, letter)
    targets = targets_of(SETTINGS, to, places, unverified=unverified)
    return run_turned(dead_letters._replay(SETTINGS, places, None, 3, key, targets))


def held(cluster: MemoryCluster) -> dict[str, int]:
    """How many records each topic has gained, but for the dead letters'."""
    topics = [name for name in (*msgspec.structs.astuple(NAMES), OTHERS) if name != NAMES.dead_letters]
    counts = Counter({name: len(cluster.log(TopicPartition(name, n)).records) for name in topics for n in (1,)})
    counts.update({name: len(cluster.log(TopicPartition(name, 0)).records) for name in topics})
    counts.subtract({NAMES.requests: 1, NAMES.labels: 1})
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("topic", [NAMES.models, NAMES.results, NAMES.dead_letters, OTHERS, "__consumer_offsets"])
@pytest.mark.parametrize("places", [(), ((1, 0),)])
@pytest.mark.parametrize("unverified", [False, True])
def test_a_letter_does_not_choose_the_topic_that_it_is_published_to(cluster, topic, places, unverified) -> None:
    forged = letter_of(REQUEST, topic=topic, key=b"alias/sentiment/champion", value=b"{}")
    done = replayed(cluster, forged, places=places, unverified=unverified)
    assert done == (0, 0, 0, Counter([FOREIGN]))
    assert held(cluster) == {}


@pytest.mark.parametrize("record", [REQUEST, LABEL], ids=["request", "label"])
@pytest.mark.parametrize(
    "changed",
    [
        {"value": b'{"text":"mine"}'},
        {"value": None},
        {"key": b"someone else's"},
        {"headers": (("tenant", b"another"),)},
    ],
    ids=["value", "tombstone", "key", "headers"],
)
@pytest.mark.parametrize("unverified", [False, True])
def test_a_letter_that_differs_from_the_record_in_the_log_is_refused(cluster, record, changed, unverified) -> None:
    done = replayed(cluster, letter_of(record, **changed), places=((1, 0),), unverified=unverified)
    assert done == (0, 0, 0, Counter([DIFFERENT]))
    assert held(cluster) == {}


def test_a_letter_that_counts_its_attempts_anew_is_refused(cluster) -> None:
    third = msgspec.structs.replace(REQUEST, offset=1, headers=(("headrace-attempt", b"3"),))
    append(cluster, NAMES.requests, Outgoing(third.value, third.key, third.headers))
    assert replayed(cluster, letter_of(third, attempt=1)).refused == Counter([DIFFERENT])


def test_sealing_a_letter_makes_it_no_truer(cluster, tmp_path) -> None:
    public = make_key(tmp_path / "key.pem")
    # The public key is in every worker's settings.
    keep = keeping(DeadLetterSettings(keep="encrypted", public_key=public_key_text(SEALING, public)))
    key = read_key(tmp_path / "key.pem")
    assert replayed(cluster, letter_of(REQUEST, keep=keep, value=b"{}"), key=key).refused == Counter([DIFFERENT])
    assert replayed(cluster, letter_of(REQUEST, keep=keep, topic=NAMES.models), key=key).refused[FOREIGN] == 1
    assert held(cluster) == {}
    assert replayed(cluster, letter_of(REQUEST, keep=keep), key=key).replayed == 1
    assert held(cluster) == {NAMES.requests: 1}


@pytest.mark.parametrize("record", [REQUEST, LABEL], ids=["request", "label"])
def test_a_true_letter_is_replayed_to_its_own_topic_and_partition(cluster, record) -> None:
    assert replayed(cluster, letter_of(record)) == (1, 0, 0, Counter())
    again = cluster.log(TopicPartition(record.topic, 1)).records[-1]
    assert (again.key, again.value) == (record.key, record.value)
    assert list(again.headers) == [*record.headers, ("headrace-attempt", b"2")]


@pytest.mark.parametrize(("partition", "offset"), [(1, 99), (0, 0), (7, 0), (-1, 0), (1, -3)])
def test_what_the_log_does_not_hold_is_only_replayed_when_the_operator_says_so(cluster, partition, offset) -> None:
    lost = letter_of(REQUEST, partition=partition, offset=offset, value=b"anything")
    assert replayed(cluster, lost, places=((1, 0),)).refused == Counter([UNCONFIRMED])
    assert held(cluster) == {}


def test_what_retention_removed_goes_to_the_configured_topic_by_unverified(cluster) -> None:
    append(cluster, NAMES.requests, *(Outgoing(b"%d" % n) for n in range(5)))
    cluster.log(TopicPartition(NAMES.requests, 1)).truncate_before(3)
    lost = letter_of(REQUEST)
    assert replayed(cluster, lost).refused == Counter([UNCONFIRMED])
    done = replayed(cluster, lost, places=((1, 0),), unverified=True)
    assert done == (1, 0, 0, Counter())
    assert cluster.log(TopicPartition(NAMES.requests, 1)).records[-1].value == REQUEST.value


def test_a_topic_that_the_operator_may_not_read_confirms_nothing(cluster, monkeypatch) -> None:
    ends = MemoryConsumer.end_offsets

    async def refuse(self: MemoryConsumer, partitions: Any) -> Any:
        if any(name.topic == NAMES.labels for name in partitions):
            raise NotAuthorizedError("no right to Read")
        return await ends(self, partitions)

    monkeypatch.setattr(MemoryConsumer, "end_offsets", refuse)
    assert replayed(cluster, letter_of(LABEL)).refused == Counter([UNREADABLE])
    assert replayed(cluster, letter_of(REQUEST)).replayed == 1
    assert replayed(cluster, letter_of(LABEL), places=((1, 0),), unverified=True).replayed == 1
    assert held(cluster) == {NAMES.requests: 1, NAMES.labels: 1}


def test_a_record_is_replayed_once_however_many_letters_name_it(cluster) -> None:
    append(cluster, NAMES.dead_letters, *[letter_of(REQUEST)] * 4)
    assert replayed(cluster, letter_of(REQUEST)) == (1, 0, 0, Counter({REPEATED: 4}))
    assert replayed(cluster, letter_of(REQUEST)) == (0, 0, 1, Counter({REPEATED: 5}))
    assert held(cluster) == {NAMES.requests: 1}


def test_a_letter_of_a_slower_group_does_not_replay_a_record_again(cluster) -> None:
    assert replayed(cluster, letter_of(REQUEST)) == (1, 0, 0, Counter())
    # A shadow's letter of the same record lies on another partition, which is read first.
    cluster.log(TopicPartition(NAMES.dead_letters, 0)).append_batch([letter_of(REQUEST)], 0)
    cluster.log(TopicPartition(NAMES.dead_letters, 1)).truncate_before(1)
    targets = targets_of(SETTINGS, None, (), unverified=False)
    assert run_turned(dead_letters._replay(SETTINGS, (), None, 3, None, targets)) == (0, 0, 0, Counter({REPEATED: 1}))
    assert held(cluster) == {NAMES.requests: 1}


def test_the_operator_names_another_topic_for_letters_that_were_looked_at(cluster) -> None:
    done = replayed(cluster, letter_of(REQUEST, topic="classify.requests-old"), places=((1, 0),), to=OTHERS)
    assert done == (1, 0, 0, Counter())
    assert held(cluster) == {OTHERS: 1}


def test_no_replay_writes_what_only_headrace_writes_and_none_goes_elsewhere_unseen() -> None:
    for topic in (NAMES.models, NAMES.results, NAMES.dead_letters):
        with pytest.raises(TargetError, match=topic):
            targets_of(SETTINGS, topic, ((0, 0),), unverified=False)
    with pytest.raises(TargetError, match="name their places"):
        targets_of(SETTINGS, OTHERS, (), unverified=False)
