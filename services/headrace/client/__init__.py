"""Publish texts to be labelled and read their labels, with the base install alone.

>>> async with headrace.client.connect("127.0.0.1:9092") as client:
...     result = await client.classify("Rates rise again")
...     async for answer in client.answers("earliest"):
...         print(answer.result.id, answer.result.label)
"""

from headrace.client.connection import Client, connect
from headrace.client.errors import (
    AnswerLogError,
    AnswersEndedError,
    ArgumentError,
    ClientClosedError,
    LostAnswerError,
    NoAnswerError,
)
from headrace.client.group_reading import GroupReader
from headrace.client.publishing import Published, prepare
from headrace.client.reading import Answer, AnswerReader
from headrace.core.answer_log import Place, decode_positions, encode_positions
from headrace.core.starts import StartError
from headrace.kafka.errors import KafkaError
from headrace.kafka.interface import Outgoing
from headrace.kafka.settings import KafkaSettings, client_options

__all__ = [
    "Answer",
    "AnswerLogError",
    "AnswerReader",
    "AnswersEndedError",
    "ArgumentError",
    "Client",
    "ClientClosedError",
    "GroupReader",
    "KafkaError",
    "KafkaSettings",
    "LostAnswerError",
    "NoAnswerError",
    "Outgoing",
    "Place",
    "Published",
    "StartError",
    "client_options",
    "connect",
    "decode_positions",
    "encode_positions",
    "prepare",
]
