"""The client for programs without an event loop: the asynchronous one, on a loop of its own in a thread of its own.

Any thread may use it, several at once, and also where another loop runs already, as in a notebook.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import datetime as dt
import functools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Concatenate, Generic, NoReturn, ParamSpec, Protocol, Self, TypeVar

from headrace.client.arguments import ClientClosedError, MisuseError, check_instance
from headrace.client.connection import COMMIT_S, Client, connect, shared_start
from headrace.client.group_reading import GroupReader
from headrace.client.publishing import ONE_UNKNOWN, Published, batches
from headrace.client.reading import Answer, AnswerReader, From
from headrace.core.answer_log import Place
from headrace.core.errors import note_once, noting
from headrace.core.resume import LARGEST_MAX_BATCH
from headrace.kafka.interface import Outgoing
from headrace.kafka.settings import KafkaSettings
from headrace_schemas.paths import RequestShape

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
from headrace_schemas.records import ClassifyRequest

GRACE_S = 1.0
"""How long calls that are under way when the client closes may take to end."""

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Generic[T]):
    """A call by another thread. The thread waits for ``outcome`` and may give up at any point, even before the call
    begins.
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._task: asyncio.Task[T] | None = None
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def begin(self) -> None:
        if not self.outcome.cancelled():
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._tell)

    def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> T:
        return await self._function()

    def _tell(self, task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        with suppress(concurrent.futures.InvalidStateError):  # given up
            if task.cancelled():
                self.outcome.cancel()
            elif error is not None:
                self.outcome.set_exception(error)
            else:
                self.outcome.set_result(task.result())


class _LoopThread:
    """Holds ``client`` open on an event loop in a thread, from the beginning to :meth:`end`, and runs its calls."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closing = False
        self._entered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve())
        # At its end the interpreter waits for threads that are not daemons before it runs the code that ends this one.
        self._thread = threading.Thread(target=self._run, name="headrace-client", daemon=True)
        atexit.register(self.end)
        self._thread.start()
        try:
            self._entered.result()
        except BaseException:
            self.end()
            raise

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` on the loop and wait for its result. An interrupted wait cancels it."""
        if os.getpid() != self._pid:
            raise MisuseError("This client was connected before a fork, in another process: connect in this one.")
        if threading.current_thread() is self._thread:
            raise MisuseError("This client is called in its own thread, where it would wait for itself.")
        call = _Call(lambda: function(*args, **kwargs))
        try:
            self._submit(call)
            return call.outcome.result()
        except concurrent.futures.CancelledError:
            raise ClientClosedError("The client was closed under this call: what became of it is unknown.") from None
        except BaseException:
            if call.outcome.cancel():
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(call.give_up)
            raise

    def let_go(self) -> None:
        """Begin to close, without waiting. It does nothing in a forked process, which does not have this thread."""
        if os.getpid() == self._pid:
            with self._lock:
                if not self._closing:
                    self._closing = True
                    # Where connecting failed the loop is closed already.
                    with suppress(RuntimeError):
                        self._loop.call_soon_threadsafe(self._serving.cancel)

    def end(self) -> None:
        """Close the client and end the thread. May be called again. The first call raises an error of closing."""
        self.let_go()
        if os.getpid() != self._pid or threading.current_thread() is self._thread:
            return
        self._thread.join()
        atexit.unregister(self.end)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _submit(self, call: _Call[T]) -> None:
        with self._lock:
            if self._closing:
                raise ClientClosedError("This client is closed; connect anew.")
            self._loop.call_soon_threadsafe(call.begin)

    async def _serve(self) -> None:
        try:
            async with self._client:
                self._entered.set_result(None)
                await asyncio.Event().wait()
        finally:
            if calls := asyncio.all_tasks() - {asyncio.current_task()}:
                _, late = await asyncio.wait(calls, timeout=GRACE_S)
                for call in late:
                    call.cancel()
                if late:
                    await asyncio.wait(late, timeout=GRACE_S)
            await self._loop.shutdown_asyncgens()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._loop.run_until_complete(self._serving)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for this thread
            failure = error
        self._loop.close()
        if self._entered.done():
            self._failure = failure
        else:
            self._entered.set_exception(failure or ClientClosedError("The client was closed before it was connected."))


H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)


class _Held(Protocol[H_co]):
    """Holds ``_held``, whose calls run on the loop of ``_thread``."""

    @property
    def _held(self) -> H_co: ...
    @property
    def _thread(self) -> _LoopThread: ...


def _waiting(
    method: Callable[Concatenate[H, P], Awaitable[T]], interrupted: str | None = None
) -> Callable[Concatenate[_Held[H], P], T]:
    """``method`` of the held object, run on the loop and waited for, with its signature and docstring.

    A KeyboardInterrupt gets the note ``interrupted``.
    """

    @functools.wraps(method)
    def call(self: _Held[H], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._thread.call(functools.partial(method, self._held), *args, **kwargs)
        except KeyboardInterrupt as interrupt:
            if interrupted is not None:
                note_once(interrupt, interrupted)
            raise

    return call


def _same(method: Callable[Concatenate[H, P], T]) -> Callable[Concatenate[_Held[H], P], T]:
    """``method`` of the held object, called directly, because it waits for nothing."""

    @functools.wraps(method)
    def call(self: _Held[H], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._held, *args, **kwargs)

    return call


class SyncReader:
    """The reader of :meth:`SyncClient.reader`: an :class:`~headrace.client.reading.AnswerReader` without an event
    loop.
    """

    def __init__(self, thread: _LoopThread, reader: AnswerReader) -> None:
        self._thread = thread
        self._held = reader

    @property
    def positions(self) -> dict[int, Place]:
        """Behind the last answer read of each partition: where a later reader begins by ``from_``."""
        return self._held.positions

    read = _waiting(AnswerReader.read)
    ends = _waiting(AnswerReader.ends)


class SyncGroupReader:
    """The reader of :meth:`SyncClient.group_reader`: a :class:`~headrace.client.group_reading.GroupReader` without an
    event loop.
    """

    def __init__(self, thread: _LoopThread, member: GroupReader) -> None:
        self._thread = thread
        self._held = member

    @property
    def partitions(self) -> frozenset[int]:
        """The results partitions that this member reads now."""
        return self._held.partitions

    read = _waiting(GroupReader.read)
    owns = _same(GroupReader.owns)
    mark = _same(GroupReader.mark)
    commit = _waiting(GroupReader.commit)


class SyncClient:
    """``client`` for programs without an event loop: methods have the arguments, results and errors of those of
    `Client`.

    It connects at once or raises a KafkaError. ``with`` or :meth:`close` closes it, at the latest the interpreter's
    end. Threads may share it: a call waits for its own answer and blocks no other call. For many answers at once call
    :meth:`classify` from several threads, such as those of a ThreadPoolExecutor, or publish and read :meth:`answers`.
    After a fork every call raises MisuseError in the child, which has to connect a client of its own.
    """

    def __init__(self, client: Client) -> None:
        check_instance("client", client, Client, "a Client")
        self._held = client
        self._thread = _LoopThread(client)
        # A client that nobody closes leaves no thread behind. At the interpreter's end the thread ends by itself.
        weakref.finalize(self, self._thread.let_go).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> NoReturn:
        raise MisuseError("This client is synchronous: enter it by `with`, or use headrace.connect().")

    async def __aexit__(self, *_: object) -> None:
        """Never reached; without it Python would not come to the words of ``__aenter__``."""

    def close(self) -> None:
        """Disconnect, and end the thread. Calls that wait raise ClientClosedError. A second call does nothing."""
        self._thread.end()

    prepare = _same(Client.prepare)
    publish = _waiting(Client.publish, interrupted=ONE_UNKNOWN)
    request_partitions = _waiting(Client.request_partitions)
    classify = _waiting(Client.classify)

    def publish_many(
        self, requests: Iterable[str | bytes | ClassifyRequest | Outgoing], *, partition: int | None = None
    ) -> list[Published]:
        """Publish many, batched; see :meth:`Client.publish_many`. ``requests`` is walked in the caller's thread."""
        # Uses private parts of Client.publish_many, because this class wraps that one.
        sent, partition = self._held._to_send(requests, partition)  # noqa: SLF001
        with noting(sent.known):
            for batch in batches(self._held._records(requests)):  # noqa: SLF001
                with sent.under_way(len(batch)):
                    sent.published += self._thread.call(self._held._publish_batch, batch, partition)  # noqa: SLF001
        return sent.published

    @contextmanager
    def reader(self, from_: From = "latest", *, partitions: Collection[int] | None = None) -> Iterator[SyncReader]:
        """Read answers by chunks; see :meth:`Client.answers`."""
        with self._within(self._held.reader(from_, partitions=partitions)) as reader:
            yield SyncReader(self._thread, reader)

    @contextmanager
    def group_reader(self, group: str, from_: str | dt.datetime = "latest") -> Iterator[SyncGroupReader]:
        """Read answers by chunks as one of the members of ``group``; see :meth:`Client.group_reader`."""
        with self._within(self._held.group_reader(group, from_)) as member:
            yield SyncGroupReader(self._thread, member)

    def answers(
        self, from_: From = "latest", *, partitions: Collection[int] | None = None, group: str | None = None
    ) -> Generator[Answer, None, None]:
        """Iterate over accepted answers, for ever; see :meth:`Client.answers`."""
        if group is None:
            with self.reader(from_, partitions=partitions) as reader:
                while True:
                    yield from reader.read()
        with self.group_reader(group, shared_start(from_, partitions)) as member:
            while True:
                for answer in member.read():
                    if member.owns(answer):
                        yield answer
                        member.mark(answer)
                        member.commit(every_s=COMMIT_S)
                member.commit(every_s=COMMIT_S)

    @contextmanager
    def _within(self, context: AbstractAsyncContextManager[T]) -> Iterator[T]:
        entered = self._thread.call(context.__aenter__)
        try:
            yield entered
        finally:
            # A client that is closed has ended its readers; in another process, or in the client's own thread, where
            # only the garbage collector comes to this, there is nothing to wait for.
            with suppress(ClientClosedError, MisuseError):
                self._thread.call(context.__aexit__, None, None, None)


def connect_sync(
    bootstrap: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    kafka: KafkaSettings | None = None,
    requests: str | None = None,
    results: str | None = None,
    reviews: str | None = None,
    max_batch: int = LARGEST_MAX_BATCH,
    shape: RequestShape | None = None,
    tracer: Tracer | None = None,
) -> SyncClient:
    """Return a connected client for programs without an event loop; the arguments are those of :func:`connect`.

    Raises what :func:`connect` does, and a KafkaError when it can't connect.

    >>> with headrace.connect_sync() as client:
    ...     print(client.classify("Rates rise again").label)
    """
    return SyncClient(
        connect(
            bootstrap,
            config=config,
            kafka=kafka,
            requests=requests,
            results=results,
            reviews=reviews,
            max_batch=max_batch,
            shape=shape,
            tracer=tracer,
        )
    )
