"""aiokafka's errors in headrace's terms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from aiokafka import errors as theirs

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

REFUSALS = (
    theirs.TopicAuthorizationFailedError,
    theirs.GroupAuthorizationFailedError,
    theirs.ClusterAuthorizationFailedError,
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


def translated(error: Exception, doing: str, *, needs: str = "Describe", topic: str | None = None) -> KafkaError:
    """Return ``error`` as one of ours, its message beginning with what was being done.

    ``needs`` is the operation, in Kafka's words, that the user has to be allowed on ``topic``, or on the one that the
    error names.
    """
    if isinstance(error, theirs.OffsetOutOfRangeError) and error.args and isinstance(error.args[0], dict):
        return OffsetOutOfRangeError({(tp.topic, tp.partition): offset for tp, offset in error.args[0].items()})
    if isinstance(error, REFUSALS):
        return NotAuthorizedError(f"{doing} was refused: {_refused(error, needs, topic)}")
    message = f"{doing} failed: {str(error) or type(error).__name__}"
    for kinds, ours in TRANSLATIONS:
        if isinstance(error, kinds):
            return ours(message)
    return BrokerUnavailableError(message) if getattr(error, "retriable", False) else KafkaError(message)


@contextlib.contextmanager
def translating(doing: str, *, needs: str = "Describe", topic: str | None = None) -> Iterator[None]:
    """Raise aiokafka's errors, and time-outs, as ours; ``needs`` and ``topic`` as :func:`translated` takes them."""
    try:
        yield
    except KafkaError:
        raise
    except (theirs.KafkaError, theirs.ConsumerStoppedError, theirs.IllegalOperation, TimeoutError, OSError) as error:
        raise translated(error, doing, needs=needs, topic=topic) from error


def _refused(error: Exception, needs: str, topic: str | None) -> str:
    """Which right is missing."""
    of = topic or (error.args[0] if error.args else "")
    # A broker's own words are no name.
    names = sorted(of) if isinstance(of, set) else [of] if " " not in of else []
    name = f" {', '.join(names)}" if any(names) else ""
    match error:
        case theirs.GroupAuthorizationFailedError():
            right = f"Read on the group{name}"
        case theirs.ClusterAuthorizationFailedError():
            # All that headrace asks of the cluster itself is an idempotent producer's id.
            right = "Write on any topic"
        case _:
            right = f"{needs} on the topic{name}"
    return f"this user has no right to {right}. `headrace topics acl` prints the rights of each role."
