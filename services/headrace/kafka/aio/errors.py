"""aiokafka's errors in headrace's terms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from aiokafka import errors as theirs

from headrace.kafka.errors import (
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

# The first row that fits decides. What fits none is retriable or not as aiokafka says.
TRANSLATIONS: tuple[tuple[tuple[type[Exception], ...], type[KafkaError]], ...] = (
    ((theirs.UnknownTopicOrPartitionError, theirs.InvalidTopicError), UnknownTopicError),
    ((theirs.TopicAlreadyExistsError,), TopicExistsError),
    (
        (
            theirs.IllegalStateError,
            theirs.CommitFailedError,
            theirs.IllegalGenerationError,
            theirs.UnknownMemberIdError,
            theirs.RebalanceInProgressError,
        ),
        RebalancedError,
    ),
    (
        (
            theirs.ProducerClosed,
            theirs.ProducerFenced,
            theirs.OutOfOrderSequenceNumber,
            theirs.InvalidProducerEpoch,
            theirs.InvalidProducerIdMapping,
            theirs.UnknownProducerId,
        ),
        ProducerDeadError,
    ),
    ((theirs.ConsumerStoppedError,), ConsumerDeadError),
    (
        (theirs.MessageSizeTooLargeError, theirs.RecordTooLargeError, theirs.RecordListTooLargeError),
        RecordTooLargeError,
    ),
    (
        (
            theirs.TopicAuthorizationFailedError,
            theirs.GroupAuthorizationFailedError,
            theirs.ClusterAuthorizationFailedError,
            theirs.SaslAuthenticationFailed,
            theirs.AuthenticationFailedError,
            theirs.UnsupportedSaslMechanismError,
        ),
        NotAuthorizedError,
    ),
    (
        (
            theirs.UnsupportedVersionError,
            theirs.IncompatibleBrokerVersion,
            theirs.UnrecognizedBrokerVersion,
            theirs.UnsupportedForMessageFormatError,
        ),
        UnsupportedError,
    ),
    (
        (theirs.KafkaTimeoutError, theirs.KafkaUnavailableError, theirs.KafkaConnectionError, TimeoutError, OSError),
        BrokerUnavailableError,
    ),
)


def translated(error: Exception, doing: str) -> KafkaError:
    """Return ``error`` as one of ours, its message beginning with what was being done."""
    if isinstance(error, theirs.OffsetOutOfRangeError) and error.args and isinstance(error.args[0], dict):
        return OffsetOutOfRangeError({(tp.topic, tp.partition): offset for tp, offset in error.args[0].items()})
    message = f"{doing} failed: {error or type(error).__name__}"
    for kinds, ours in TRANSLATIONS:
        if isinstance(error, kinds):
            return ours(message)
    return BrokerUnavailableError(message) if getattr(error, "retriable", False) else KafkaError(message)


@contextlib.contextmanager
def translating(doing: str) -> Iterator[None]:
    """Raise aiokafka's errors, and time-outs, as ours."""
    try:
        yield
    except KafkaError:
        raise
    except (theirs.KafkaError, theirs.ConsumerStoppedError, theirs.IllegalOperation, TimeoutError, OSError) as error:
        raise translated(error, doing) from error
