"""Publish texts to be labelled and read their labels, with the base install alone.

>>> async with headrace.connect() as client:
...     result = await client.classify("Rates rise again")
...     async for answer in client.answers("earliest"):
...         print(answer.result.id, answer.result.label)

Without an event loop:

>>> with headrace.connect_sync() as client:
...     print(client.classify("Rates rise again").label)
"""

from headrace.client.arguments import (
    AnswerLogError,
    AnswersEndedError,
    ArgumentError,
    ClientClosedError,
    LostAnswerError,
    MisuseError,
    NoAnswerError,
)
from headrace.client.connection import Client, connect
from headrace.client.group_reading import GroupReader
from headrace.client.publishing import Published, prepare
from headrace.client.reading import Answer, AnswerReader
from headrace.client.reviews import ReviewedResult
from headrace.client.sync import SyncClient, SyncGroupReader, SyncReader, connect_sync
from headrace.core.answer_log import Place, decode_positions, encode_positions
from headrace.core.fields import StartError
from headrace.kafka.interface import KafkaError, Outgoing
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
    "MisuseError",
    "NoAnswerError",
    "Outgoing",
    "Place",
    "Published",
    "ReviewedResult",
    "StartError",
    "SyncClient",
    "SyncGroupReader",
    "SyncReader",
    "client_options",
    "connect",
    "connect_sync",
    "decode_positions",
    "encode_positions",
    "prepare",
]
