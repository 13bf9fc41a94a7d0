from __future__ import annotations

import pytest
from aiokafka import TopicPartition, errors

from headrace.kafka.aio.connection import translating
from headrace.kafka.interface import (
    BrokerUnavailableError,
    ConsumerDeadError,
    KafkaError,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    ProducerDeadError,
    RebalancedError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
    UnsupportedError,
)


@pytest.mark.parametrize(
    ("raised", "expected", "retriable"),
    [
        (errors.UnknownTopicOrPartitionError(), UnknownTopicError, False),
        (errors.TopicAlreadyExistsError(), TopicExistsError, False),
        (errors.CommitFailedError(), RebalancedError, True),
        (errors.IllegalStateError("Partition is not assigned"), RebalancedError, True),
        (errors.UnknownMemberIdError(), RebalancedError, True),
        (errors.OutOfOrderSequenceNumber(), ProducerDeadError, False),
        (errors.ProducerFenced(), ProducerDeadError, False),
        (errors.ConsumerStoppedError(), ConsumerDeadError, False),
        (errors.MessageSizeTooLargeError(), RecordTooLargeError, False),
        (errors.TopicAuthorizationFailedError(), NotAuthorizedError, False),
        (errors.AuthenticationFailedError(), NotAuthorizedError, False),
        (errors.IncompatibleBrokerVersion(), UnsupportedError, False),
        (errors.KafkaConnectionError(), BrokerUnavailableError, True),
        (errors.NotEnoughReplicasError(), BrokerUnavailableError, True),
        (errors.NotLeaderForPartitionError(), BrokerUnavailableError, True),
        (errors.RequestTimedOutError(), BrokerUnavailableError, True),
        (TimeoutError(), BrokerUnavailableError, True),
        (ConnectionRefusedError("refused"), BrokerUnavailableError, True),
        (errors.InvalidConfigurationError("bad value"), KafkaError, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_of_the_client_becomes_the_one_that_callers_handle(raised, expected, retriable):
    with (
        pytest.raises(KafkaError, match=r"Reading the news (failed|was refused)") as caught,
        translating("Reading the news"),
    ):
        raise raised
    assert type(caught.value) is expected
    assert caught.value.retriable is retriable
    assert caught.value.__cause__ is raised


def test_an_offset_out_of_range_keeps_partition_and_position():
    with pytest.raises(OffsetOutOfRangeError, match=r"news\[3\] has no offset 17") as caught, translating("Fetching"):
        raise errors.OffsetOutOfRangeError({TopicPartition("news", 3): 17})
    assert caught.value.positions == {("news", 3): 17}


def test_an_error_of_ours_passes_as_it_is():
    ours = RebalancedError("the partitions moved")
    with pytest.raises(RebalancedError) as caught, translating("Committing"):
        raise ours
    assert caught.value is ours


def test_a_fault_in_our_own_code_is_not_hidden():
    with pytest.raises(ZeroDivisionError), translating("Dividing"):
        _ = 1 / 0


@pytest.mark.parametrize(
    ("raised", "right"),
    [
        (errors.TopicAuthorizationFailedError("news"), "Read on the topic news"),
        (errors.TopicAuthorizationFailedError({"news", "letters"}), "Read on the topic letters, news"),
        (errors.TopicAuthorizationFailedError("Authorization failed."), r"Read on the topic\."),
        (errors.GroupAuthorizationFailedError("readers"), "Read on the group readers"),
        (errors.ClusterAuthorizationFailedError(), "Write on any topic"),
    ],
    ids=["a topic", "topics", "an unnamed topic", "a group", "the cluster"],
)
def test_a_right_that_is_missing_is_named(raised, right):
    expected = pytest.raises(NotAuthorizedError, match=f"no right to {right}.*headrace topics acl")
    with expected, translating("Fetching", needs="Read"):
        raise raised
