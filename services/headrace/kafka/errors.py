"""The errors of every Kafka backend, so that no caller needs to know aiokafka's."""

from __future__ import annotations


class KafkaError(Exception):
    """Base of all; ``retriable`` says whether the same call may succeed later."""

    retriable = False


class BrokerUnavailableError(KafkaError):
    """No broker answers, or it answered that it can't just now (no leader, not enough replicas, time-out)."""

    retriable = True


class RebalancedError(KafkaError):
    """The call named a partition that this member no longer owns, or its group generation is over."""

    retriable = True


class OffsetOutOfRangeError(KafkaError):
    """A fetch position outside the log. ``positions`` maps (topic, partition) to the position asked for."""

    def __init__(self, positions: dict[tuple[str, int], int]) -> None:
        self.positions = positions
        super().__init__(
            ", ".join(
                f"{topic}[{partition}] has no offset {offset}" for (topic, partition), offset in positions.items()
            )
        )


class UnknownTopicError(KafkaError):
    """The cluster has no such topic or partition."""


class TopicExistsError(KafkaError):
    """The topic to create is there already."""


class RecordTooLargeError(KafkaError):
    """A record exceeds what the client or the topic takes. ``index`` is its place among the records given."""

    def __init__(self, message: str, index: int = 0) -> None:
        self.index = index
        super().__init__(message)


class ProducerDeadError(KafkaError):
    """The producer can't be used again (fenced, out of sequence, closed): make a new one and resume from the log."""


class ConsumerDeadError(KafkaError):
    """The consumer can't be used again: it was stopped."""


class NotAuthorizedError(KafkaError):
    """The cluster refuses this to the user that we are."""


class NotTrustedError(KafkaError):
    """TLS came to nothing: one side does not accept the other's certificate."""


class UnsupportedError(KafkaError):
    """The broker does not offer this (the embedded one refuses some admin calls)."""


def passes(error: KafkaError) -> bool:
    """Whether trying again may mend ``error``; a dead producer is made anew by whoever tries again."""
    return error.retriable or isinstance(error, ProducerDeadError)
