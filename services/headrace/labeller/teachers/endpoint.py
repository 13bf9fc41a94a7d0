"""The teacher `endpoint:URL`: a language model behind any address that speaks OpenAI's chat completions.

The endpoint is a stranger. It gets what the operator named, redacted, and nothing else: no header but the key, none of
the environment's OpenAI variables. No redirect is followed, so the key goes to no other host. An answer is read up to a
bound and has a bounded time. It can change nothing but the label of the texts that it was asked about.

Waiting: 429, 408, 409, errors of the server, a lost connection and a time-out are tried again, after what `Retry-After`
says or else by exponential backoff with full jitter (Brooker, Exponential Backoff And Jitter, AWS 2015). A wait that
one call is told holds for all of them. A wrong key, a model that is not there and an empty account end the teacher.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import numpy as np

from headrace.core.text import given_as, printable
from headrace.labeller.teachers.interface import (
    Failure,
    Identity,
    SoftLabels,
    Spent,
    TeacherError,
    TeacherName,
    Tell,
    digest_of,
    identity_of,
    silent,
)
from headrace.labeller.teachers.labels_file import Labels
from headrace.labeller.teachers.program import cut_to_bytes
from headrace.labeller.teachers.prompt import TOP_TOKENS, Prompt, TokenChoice, one_hot, read_answer, scores_by_tokens
from headrace.labeller.teachers.settings import TeacherSettings

MOST_ANSWER_BYTES = 4 << 20
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
# A token has about four bytes of English, and fewer of what a model knows badly. Sent bytes are counted as half of
# them, so that a reservation holds; JSON and names of an answer likewise.
_BYTES_A_TOKEN = 2
_ANSWER_TOKENS = 32
_HEADERS = frozenset(
    {"authorization", "content-type", "content-length", "accept", "accept-encoding", "host", "user-agent", "connection"}
)
# What an endpoint may not know; it is left out once the endpoint has said so.
_OPTIONAL = ("top_logprobs", "logprobs", "response_format", "max_completion_tokens", "temperature", "seed")
_PROBABILITIES = frozenset({"logprobs", "top_logprobs"})
_AGAIN = {408, 409, 425, 429}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Tokens(msgspec.Struct, frozen=True):
    content: list[TokenChoice] | None = None


class TooLargeError(Exception):
    """An answer that goes on past the bound."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLargeError
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends no header but those it has to, and reads no more than ``most`` bytes of an answer, none of them packed."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, most: int = MOST_ANSWER_BYTES) -> None:
        self._inner = inner
        self._most = most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _HEADERS}
        # A packed answer could be a thousand times what was counted.
        headers |= {"accept-encoding": "identity", "user-agent": "headrace"}
        # The library looks at its own request again, so that one stays as it is.
        sent = httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        response = await self._inner.handle_async_request(sent)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise TooLargeError
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - that of an asynchronous transport
        response.stream = _Bounded(response.stream, self._most)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class EndpointTeacher:
    """A language model at an address. ``sleep``, the clocks and ``randomness`` are given, so that tests need not wait.

    Raises TeacherError where no model is named.
    """

    def __init__(
        self,
        name: TeacherName,
        labels: Labels,
        settings: TeacherSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        randomness: random.Random | None = None,
    ) -> None:
        if settings.model is None:
            raise TeacherError(f"{name}: name the model that is to be asked for by teacher.model (--model).")
        self.url = name.target or ""
        self._settings = settings
        self._prompt = Prompt(labels)
        self._redaction = settings.redaction()
        self._places = {label: place for place, label in enumerate(labels.names)}
        self._left_out: set[str] = set() if settings.log_probabilities else set(_PROBABILITIES)
        self._sleep, self._monotonic, self._wall = sleep, monotonic, wall
        self._randomness = randomness or random.Random()  # noqa: S311 - it spreads waits
        self._paused_until = -math.inf
        self._client: Any = None
        self.labels = labels.names
        self.batch = settings.texts_a_call * settings.concurrency * 4
        self.failed: dict[str, int] = {}
        """How many texts failed, by the failure's code."""
        shape = (settings.model, settings.texts_a_call, settings.log_probabilities, settings.confidence)
        prompt = digest_of(self._prompt.identity, msgspec.json.encode(shape), self._redaction.identity)[:16]
        self.identity: Identity = identity_of(name, labels.names, prompt=prompt)

    def within(self, texts: Sequence[str]) -> Spent:
        bodies = [self._estimate(body) for body in self.bodies(texts)]
        return sum(bodies, Spent())

    def bodies(self, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The JSON bodies of the calls about ``texts``: all that leaves this machine, beside the key."""
        size = self._settings.texts_a_call
        for first in range(0, len(texts), size):
            yield self._body(texts[first : first + size])

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        failures: dict[int, Failure] = {}
        size, spent, done = self._settings.texts_a_call, Spent(), 0
        calls = iter(range(0, len(texts), size))
        ended: list[TeacherError] = []
        left = set(range(len(texts)))

        async def work() -> None:
            nonlocal spent, done
            while not ended and (first := next(calls, None)) is not None:
                part = texts[first : first + size]
                try:
                    found, took = await self._asked(part)
                except TeacherError as error:
                    # Other calls go on to their end: they are paid for.
                    ended.append(error)
                    return
                spent += took
                left.difference_update(range(first, first + size))
                for place, one in enumerate(found, first):
                    if isinstance(one, Failure):
                        failures[place] = one
                        self.failed[one.code] = self.failed.get(one.code, 0) + 1
                    else:
                        scores[place] = one
                done += len(part)
                tell("labelling", done, len(texts))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.concurrency, math.ceil(len(texts) / size))):
                group.create_task(work())
        if ended:
            if len(left) + len(failures) == len(texts) and not spent.cost:
                raise ended[0]
            # What came before is kept. The next call meets the error again, with nothing to lose.
            failures |= dict.fromkeys(left, Failure("ended", str(ended[0]), passing=True))
        return SoftLabels(scores, dict(sorted(failures.items())), spent)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _body(self, texts: Sequence[str]) -> dict[str, Any]:
        shown = [cut_to_bytes(self._redaction(text), self._settings.max_text_bytes) for text in texts]
        longest = max(len(name.encode()) for name in self.labels)
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": self._prompt.messages(shown),
            "response_format": self._prompt.schema(),
            "temperature": 0,
            "max_completion_tokens": _ANSWER_TOKENS + len(texts) * (_ANSWER_TOKENS + longest),
            "logprobs": True,
            "top_logprobs": TOP_TOKENS,
        }
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _estimate(self, body: dict[str, Any]) -> Spent:
        sent = len(json.dumps(body, ensure_ascii=False).encode()) // _BYTES_A_TOKEN
        said = int(body.get("max_completion_tokens", _ANSWER_TOKENS)) // _BYTES_A_TOKEN
        return Spent(1, sent, said, self._settings.cost(sent, said))

    async def _asked(self, texts: Sequence[str]) -> tuple[list[Any], Spent]:
        """Scores or a Failure for each of ``texts``, after as many attempts as it takes, and what they took."""
        spent, attempt = Spent(), 0
        while True:
            waiting = self._paused_until - self._monotonic()
            if waiting > self._settings.longest_wait:
                return [self._limited(waiting)] * len(texts), spent
            if waiting > 0:
                await self._sleep(waiting)
            body = self._body(texts)
            found, took, wait = await self._call(body, texts)
            spent += took
            if found is None:
                # An option was left out, which is no attempt of the endpoint's.
                continue
            attempt += 1
            if not (isinstance(found, Failure) and found.passing):
                return [found] * len(texts) if isinstance(found, Failure) else found, spent
            if wait is not None:
                self._paused_until = max(self._paused_until, self._monotonic() + wait)
                if wait > self._settings.longest_wait:
                    return [self._limited(wait)] * len(texts), spent
            if attempt >= self._settings.attempts:
                return [found] * len(texts), spent
            if wait is None:
                most = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (attempt - 1))
                await self._sleep(self._randomness.uniform(0, most))

    def _limited(self, wait: float) -> Failure:
        return Failure(
            "rate-limited",
            f"the endpoint asks to wait {wait:.0f} s, and teacher.longest_wait is {self._settings.longest_wait:g} s",
            passing=True,
            wait_s=wait,
        )

    async def _call(
        self, body: dict[str, Any], texts: Sequence[str]
    ) -> tuple[list[Any] | Failure | None, Spent, float | None]:
        """One call: what came of it (None: an option was left out, ask anew), what it took, how long to wait."""
        import openai  # noqa: PLC0415 - heavy, and part of an extra

        client = self._opened()
        timeout = self._settings.timeout
        known: dict[str, Any] = dict(body)
        try:
            async with asyncio.timeout(timeout):
                raw = await client.chat.completions.with_raw_response.create(**known)
        except (TimeoutError, openai.APITimeoutError):
            # It may have been answered, and charged, all the same.
            return (
                Failure("timed-out", f"no answer within {timeout:g} s (teacher.timeout)", passing=True),
                self._estimate(body),
                None,
            )
        except openai.APIStatusError as error:
            return self._refused(error, body)
        except TooLargeError:
            large = f"the answer is packed, or larger than {MOST_ANSWER_BYTES >> 20} MiB"
            return Failure("malformed", large), self._estimate(body), None
        except openai.OpenAIError:
            return Failure("unreachable", f"no connection to {self._host()}", passing=True), Spent(1), None
        return *self._read(raw.http_response.content, body, texts), None

    def _read(self, content: bytes, body: dict[str, Any], texts: Sequence[str]) -> tuple[list[Any] | Failure, Spent]:
        try:
            completion = msgspec.json.decode(content, type=_Completion)
            choice = completion.choices[0]
        except (msgspec.DecodeError, RecursionError, IndexError):
            return Failure("malformed", "the endpoint's answer is no chat completion"), self._estimate(body)
        usage = completion.usage
        if usage is None or min(usage.prompt_tokens, usage.completion_tokens) < 0:
            spent = self._estimate(body)
        else:
            cost = self._settings.cost(usage.prompt_tokens, usage.completion_tokens)
            spent = Spent(1, usage.prompt_tokens, usage.completion_tokens, cost)
        said = choice.message.content
        if said is None or choice.finish_reason == "content_filter":
            return Failure("refused", "the model refused to answer"), spent
        found: list[Any] = list(read_answer(said, len(texts), self.labels))
        by_number = self._token_scores(said, choice.logprobs)
        for place, one in enumerate(found):
            if isinstance(one, str):
                where = self._places[one]
                scores = by_number.get(place + 1)
                found[place] = (
                    scores if scores is not None else one_hot(where, len(self.labels), self._settings.confidence)
                )
        return found, spent

    def _token_scores(self, said: str, raw: msgspec.Raw) -> dict[int, Any]:
        if "logprobs" in self._left_out:
            return {}
        try:
            tokens = msgspec.json.decode(raw, type=_Tokens | None)
        except (msgspec.DecodeError, RecursionError):
            return {}
        return {} if tokens is None or not tokens.content else scores_by_tokens(said, tokens.content, self.labels)

    def _refused(self, error: Any, body: dict[str, Any]) -> tuple[Failure | None, Spent, float | None]:
        """What an error status means. Raises TeacherError for what would meet every text."""
        status, code = int(error.status_code), str(error.code or "")
        if useless := self._useless(status, code, str(error.response.headers.get("location", ""))):
            raise _with_note(TeacherError(useless), error)
        host = self._host()
        if status in _AGAIN or status >= 500:
            wait = retry_after(error.response.headers, self._wall())
            if status == 429:
                return Failure("rate-limited", f"{host} is asked too much", passing=True), Spent(1), wait
            return Failure("broken", f"{host} answers with status {status}", passing=True), Spent(1), wait
        named = f"{error.param or ''} {error.message or ''}"
        for option in _OPTIONAL:
            if option in body and option in named:
                # Without probabilities the alternatives make no sense either.
                self._left_out |= _PROBABILITIES if option in _PROBABILITIES else {option}
                return None, Spent(1), None
        if status == 413:
            return Failure("too-long", f"{host} says that the text is too long"), Spent(1), None
        told = f", {given_as(code, 60)}" if code else ""
        return Failure("refused", f"{host} refuses the text (status {status}{told})"), Spent(1), None

    def _useless(self, status: int, code: str, location: str) -> str:
        """Why no text can be labelled with such an answer; "" where others may."""
        host = self._host()
        if status == 402 or code in _NO_MONEY:
            return f"{host} says that the account has no money left."
        if 300 <= status < 400:
            elsewhere = given_as(urlsplit(location).hostname or "another address", 80)
            return (
                f"{host} sends on to {elsewhere}, which is not followed: it would get the key and the texts. If it is "
                "the right one, name it as the teacher's address."
            )
        if status in (401, 403):
            return (
                f"{host} refuses the key (status {status}). It is teacher.api_key: the environment variable "
                "HEADRACE_TEACHER__API_KEY, or a file that HEADRACE_TEACHER__API_KEY_FILE names."
            )
        if status in (404, 405):
            model = given_as(str(self._settings.model), 80)
            return f"{self.url}: has no chat completions, or not the model {model} (teacher.model)."
        return ""

    def _host(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def _opened(self) -> Any:
        if self._client is None:
            import openai  # noqa: PLC0415 - heavy, and part of an extra

            key = self._settings.api_key
            wait = httpx2.Timeout(self._settings.timeout)
            transport = BoundedTransport(httpx2.AsyncHTTPTransport())
            self._client = openai.AsyncOpenAI(
                base_url=self.url,
                # Without one the library would take that of the environment, which may be meant for another host.
                api_key="none" if key is None else key.reveal(),
                max_retries=0,
                timeout=wait,
                http_client=httpx2.AsyncClient(
                    transport=transport, follow_redirects=False, trust_env=False, timeout=wait
                ),
            )
        return self._client


def retry_after(headers: Any, now: float) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``Retry-After`` (seconds or a date), None where neither says it.

    ``now`` is the wall clock's time, for the date.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        told = str(headers.get(name, "")).strip()
        try:
            wait = float(told) / unit
        except ValueError:
            continue
        if math.isfinite(wait) and wait >= 0:
            return wait
    try:
        moment = email.utils.parsedate_to_datetime(str(headers.get("retry-after", "")))
        return max(0.0, moment.timestamp() - now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _with_note(ours: TeacherError, theirs: Any) -> TeacherError:
    """What the endpoint said goes to the terminal and never into a log: it may quote a text, or the key."""
    said = str(getattr(theirs, "message", "")).strip()
    if said:
        ours.add_note(f"It said: {printable(said[:300])}")
    return ours
