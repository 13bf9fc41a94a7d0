"""What of aiokafka's log reaches a person."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from headrace.kafka.aio import calmed
from headrace.kafka.aio.connection import translating
from headrace.kafka.interface import BrokerUnavailableError

TRIED_AGAIN = [
    ("aiokafka", logging.ERROR, "Unable connect to node with id %s: %s", (0, "refused")),
    ("aiokafka", logging.ERROR, "Unable to update metadata from %s", ([0],)),
    ("aiokafka.cluster", logging.ERROR, "Topic %s not found in cluster metadata", ("t",)),
    ("aiokafka.consumer.group_coordinator", logging.ERROR, "Group Coordinator Request failed: %s", ("not yet",)),
    ("aiokafka.consumer.group_coordinator", logging.WARNING, "Heartbeat failed for group %s because it is reb", ("g",)),
    ("aiokafka.consumer.fetcher", logging.ERROR, "Failed fetch messages from %s: %s", (0, "x")),
    ("aiokafka.producer.sender", logging.WARNING, "Got error produce response: %s", ("x",)),
]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(("name", "level", "message", "arguments"), TRIED_AGAIN)
def test_what_is_tried_again_is_for_debugging_only(kept, name, level, message, arguments):
    with calmed():
        logging.getLogger(name).log(level, message, *arguments)
        assert kept.records == []
    logging.getLogger(name).log(level, message, *arguments)
    assert len(kept.records) == 1, "afterwards the log is the user's own again"


def test_who_debugs_sees_what_is_tried_again(kept, caplog):
    caplog.set_level(logging.DEBUG, "aiokafka")
    with calmed():
        logging.getLogger("aiokafka").error("Unable connect to node with id %s: %s", 0, "refused")
    assert [record.levelname for record in kept.records] == ["DEBUG"]


def test_what_nobody_tries_again_is_said_but_not_all_the_time(kept):
    with calmed():
        for _ in range(1000):
            logging.getLogger("aiokafka.consumer.fetcher").warning("Not authorized to read from topic %s.", "t")
    assert len(kept.records) == 1


def test_a_traceback_is_never_hidden(kept):
    with calmed():
        try:
            int("no number")
        except ValueError:
            logging.getLogger("aiokafka").exception("Heartbeat broke in a way that nobody foresaw")
    assert len(kept.records) == 1


def test_one_client_that_closes_leaves_the_log_calm_for_another(kept):
    with calmed():
        with calmed():
            pass
        logging.getLogger("aiokafka").error("Unable to update metadata from %s", [0])
    assert kept.records == []


def test_a_write_to_a_connection_that_was_closed_may_be_tried_again():
    closed = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    said = "Fetching failed: the connection was closed"
    with pytest.raises(BrokerUnavailableError, match=said), translating("Fetching"):
        raise closed
    with pytest.raises(RuntimeError, match="another"), translating("Fetching"):
        raise RuntimeError("another")
