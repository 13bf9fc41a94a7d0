"""An OpenAI-compatible server on this machine around a real classifier, with the faults of real servers.

Tests, benchmarks and the demo ask it instead of a language model that costs money. It reads the texts and the allowed
labels from the request, as a model would, and answers with tokens and their probabilities, as if it had written the
answer from left to right. Its caller decides what fails and when, and whether it obeys texts that order an answer.
"""

from __future__ import annotations

import enum
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.words import split_words

Classify = Callable[[Sequence[str], Sequence[str]], NDArray[np.floating]]
"""Takes texts and the allowed labels; returns scores [texts, labels], each row of which sums to 1."""

_LONGEST_BODY = 4 << 20
_PIECE = 4
_MOST_ALTERNATIVES = 20
_TEXTS = re.compile(r"<texts>\n(.*)\n</texts>", re.DOTALL)
_ORDERED = re.compile(
    r"\b(?:answer(?: with)?|label for this text is|this is always) [\"']?([\w -]{1,60}?)[\"']?\s*(?:[.!,;]|$)",
    re.IGNORECASE,
)


class Fault(enum.StrEnum):
    """What can happen to a call instead of its answer."""

    RATE_LIMIT = "rate-limit"
    """429, with Retry-After."""
    ERROR = "error"
    """500."""
    SLOW = "slow"
    """The answer comes after ``slow_s``."""
    MALFORMED = "malformed"
    """JSON that ends in the middle, inside a completion that is whole."""
    NO_COMPLETION = "no-completion"
    """A page of HTML with status 200."""
    WRONG_LABEL = "wrong-label"
    """A label that was not asked about."""
    REFUSAL = "refusal"
    """The model refuses to answer."""
    DROPPED = "dropped"
    """The connection is closed without an answer."""
    ENDLESS = "endless"
    """An answer that never ends."""
    REDIRECT = "redirect"
    """307 to ``elsewhere``."""
    NO_MONEY = "no-money"
    """429 as it is given when an account is empty."""


class Call(msgspec.Struct, frozen=True):
    """One call: its ``texts``, the status of the response, the headers, and the whole ``body``."""

    texts: tuple[str, ...]
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class ChatServer:
    """``faults`` returns the fault of call n, counted from 0. If there is a ``key``, calls need it.

    ``knows`` are the optional parameters that the server takes; it refuses others with 400. A server that ``obeys``
    answers as a text orders, as models do. It answers ``a_second`` calls a second; the others get 429.
    """

    def __init__(
        self,
        classify: Classify,
        *,
        faults: Callable[[int], Fault | None] = lambda _: None,
        key: str | None = None,
        obeys: bool = False,
        knows: Sequence[str] = ("response_format", "temperature", "max_completion_tokens", "logprobs", "top_logprobs"),
        retry_after: str = "0.05",
        slow_s: float = 1.0,
        elsewhere: str = "http://127.0.0.1:9/v1/chat/completions",
        a_second: float = math.inf,
    ) -> None:
        self.classify, self.faults, self.key, self.obeys = classify, faults, key, obeys
        self.knows, self.retry_after, self.slow_s, self.elsewhere = frozenset(knows), retry_after, slow_s, elsewhere
        self.a_second = a_second
        self.calls: list[Call] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._allowance, self._filled = a_second, time.monotonic()

    @property
    def asked(self) -> Counter[str]:
        """How often each text was answered with a label."""
        with self._lock:
            return Counter(text for call in self.calls if call.status == 200 for text in call.texts)

    def next_fault(self) -> Fault | None:
        """The fault of the next call."""
        with self._lock:
            number, self._number = self._number, self._number + 1
            now = time.monotonic()
            if self.a_second < math.inf:
                self._allowance = min(self.a_second, self._allowance + (now - self._filled) * self.a_second)
                self._filled = now
                if self._allowance < 1:
                    return Fault.RATE_LIMIT
                self._allowance -= 1
        return self.faults(number)

    def note(self, call: Call) -> None:
        """Record a call."""
        with self._lock:
            self.calls.append(call)


@contextmanager
def chat_server(server: ChatServer, port: int = 0) -> Iterator[str]:
    """Serve on the loopback until the block ends. Yields the address for a teacher's name, such as http://.../v1."""
    http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"chat": server}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chat: ChatServer

    def log_message(self, *_: Any) -> None:
        """Log nothing, because requests hold texts."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(min(length, _LONGEST_BODY)))
        texts = _texts_of(body)
        status, answer, headers = self._answered(body, texts)
        kept = {name.lower(): value for name, value in self.headers.items()}
        self.chat.note(Call(tuple(texts), status, kept, body))
        if status:
            self._send(status, answer, headers)

    def _answered(self, body: dict[str, Any], texts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        chat = self.chat
        if refused := self._refused(body):
            return refused
        fault = chat.next_fault()
        statuses = {
            Fault.RATE_LIMIT: (
                429,
                _error("too many requests", code="rate_limit_exceeded"),
                {"Retry-After": chat.retry_after},
            ),
            Fault.NO_MONEY: (429, _error("you have no money left", code="insufficient_quota"), {}),
            Fault.ERROR: (500, _error("something broke"), {}),
            Fault.REDIRECT: (307, b"", {"Location": chat.elsewhere}),
            Fault.NO_COMPLETION: (200, b"<html>We will be back soon</html>", {}),
        }
        if fault in statuses:
            return statuses[fault]
        if fault in (Fault.DROPPED, Fault.ENDLESS):
            self.close_connection = True
            if fault is Fault.ENDLESS:
                self._send_endlessly()
            return 0, b"", {}
        if fault is Fault.SLOW:
            chat.closing.wait(chat.slow_s)
        return 200, _completion(chat, body, texts, fault), {}

    def _refused(self, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]] | None:
        """What is wrong with the call itself."""
        chat = self.chat
        if self.path != "/v1/chat/completions":
            return 404, _error("no such path"), {}
        if chat.key is not None and self.headers.get("authorization") != f"Bearer {chat.key}":
            return 401, _error("the key is wrong", code="invalid_api_key"), {}
        if unknown := body.keys() - chat.knows - {"model", "messages"}:
            name = min(unknown)
            return 400, _error(f"unknown parameter {name}", code="unsupported_parameter", param=name), {}
        return None

    def _send(self, status: int, answer: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            self.close_connection = True

    def _send_endlessly(self) -> None:
        self.close_connection = True
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            while not self.chat.closing.is_set():
                self.wfile.write(b" " * 65_536)
        except OSError:
            pass


def _texts_of(body: dict[str, Any]) -> list[str]:
    said = " ".join(str(message.get("content")) for message in body.get("messages", ()) if message["role"] == "user")
    found = _TEXTS.search(said)
    return [str(one["text"]) for one in json.loads(found[1])] if found else []


def _labels_of(body: dict[str, Any]) -> list[str]:
    """The allowed labels: those of the schema, or of the list in the system's message."""
    if form := body.get("response_format"):
        schema = form["json_schema"]["schema"]
        return list(schema["properties"]["labels"]["items"]["properties"]["label"]["enum"])
    system = next(message["content"] for message in body["messages"] if message["role"] == "system")
    return [json.loads(line)["label"] for line in system.splitlines() if line.startswith('{"label"')]


def _error(message: str, **more: str) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def _completion(chat: ChatServer, body: dict[str, Any], texts: list[str], fault: Fault | None) -> bytes:
    labels = _labels_of(body)
    scores = np.asarray(chat.classify(texts, labels), np.float64)
    chosen = scores.argmax(1)
    if chat.obeys:
        for row, text in enumerate(texts):
            ordered = [one.strip() for one in _ORDERED.findall(text) if one.strip() in labels]
            if ordered:
                chosen[row] = labels.index(ordered[-1])
                scores[row] = 0.02 / len(labels)
                scores[row, chosen[row]] += 0.98
    names = [labels[place] for place in chosen]
    if fault is Fault.WRONG_LABEL:
        names = ["a label that nobody asked about"] * len(texts)
    tokens = list(_tokens(names, labels, scores))
    content = "".join(token["token"] for token in tokens)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if fault is Fault.MALFORMED:
        message["content"] = content[: len(content) // 2]
    if fault is Fault.REFUSAL:
        message |= {"content": None, "refusal": "I can't help with that."}
    sent = len(json.dumps(body["messages"]))
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": "stop",
                    "logprobs": {"content": tokens} if body.get("logprobs") else None,
                }
            ],
            "usage": {
                "prompt_tokens": math.ceil(sent / _PIECE),
                "completion_tokens": len(tokens),
                "total_tokens": math.ceil(sent / _PIECE) + len(tokens),
            },
        }
    ).encode()


def _tokens(names: Sequence[str], labels: Sequence[str], scores: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """The answer in tokens of at most four characters, each with the probability that the ``scores`` give it."""
    yield _token('{"labels": [')
    written = [json.dumps(label, ensure_ascii=False)[1:] for label in labels]
    for row, name in enumerate(names):
        yield _token(f'{", " if row else ""}{{"n": {row + 1}, "label": "')
        value = json.dumps(name, ensure_ascii=False)[1:]
        for at in range(0, len(value), _PIECE):
            begun = [place for place, one in enumerate(written) if one.startswith(value[:at])]
            following: Counter[str] = Counter()
            for place in begun:
                following[written[place][at : at + _PIECE]] += scores[row, place]
            total = sum(following.values()) or 1.0
            piece = value[at : at + _PIECE]
            shares = {one: share / total for one, share in following.most_common(_MOST_ALTERNATIVES)}
            yield _token(piece, shares.get(piece, 1.0), shares)
        yield _token("}")
    yield _token("]}")


def _token(token: str, probability: float = 1.0, others: dict[str, float] | None = None) -> dict[str, Any]:
    alternatives = [{"token": one, "logprob": _log(share)} for one, share in (others or {token: 1.0}).items()]
    return {"token": token, "logprob": _log(probability), "top_logprobs": alternatives}


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-30))


def naive_bayes(texts: Sequence[str], labels: Sequence[str]) -> Classify:
    """A small classifier that learnt from these rows: multinomial naive Bayes over words, smoothed by one."""
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(split_words(text.lower(), 10_000))
    known = len({word for words in counts.values() for word in words}) + 1
    totals = {label: sum(words.values()) for label, words in counts.items()}
    nothing: Counter[str] = Counter()

    def classify(asked: Sequence[str], allowed: Sequence[str]) -> NDArray[np.float64]:
        logits = np.zeros((len(asked), len(allowed)))
        for row, text in enumerate(asked):
            words = split_words(text.lower(), 10_000)
            for place, label in enumerate(allowed):
                of, total = counts.get(label, nothing), totals.get(label, 0) + known
                logits[row, place] = sum(math.log((of[word] + 1) / total) for word in words)
        raised = np.exp(logits - logits.max(1, keepdims=True))
        found: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
        return found

    return classify
