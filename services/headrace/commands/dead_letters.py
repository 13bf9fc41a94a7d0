"""`headrace dead-letters`: requests that could not be answered, labels that can't be used, and another try for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from headrace.commands.common import Bootstrap, LinesOfJson, Yes, begin, cluster_of, confirm, say
from headrace.core.errors import UserError, noting
from headrace.core.text import quantity
from headrace_schemas.errors import place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from headrace.client.dead_letters import Found, Targets
    from headrace.config import Settings
    from headrace.kafka.interface import TopicPartition
    from headrace.security.keys import PrivateKey

app = typer.Typer(no_args_is_help=True, add_completion=False)

Places = Annotated[list[str], typer.Argument(metavar="PARTITION@OFFSET...", help="Places, as `list` shows them.")]
ErrorCode = Annotated[str | None, typer.Option("--error", help="Only those with this error, such as bad-bytes.")]

KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="The private key that opens encrypted ones.")
]


class PlaceError(UserError):
    """An argument names no dead letter."""

    exit_code = 2


class TargetError(UserError):
    """``--to`` names a topic that a replay must not write, or names no letters with it."""

    exit_code = 2


@app.callback()
def dead_letters() -> None:
    """Show the requests and labels that failed, and replay them once the cause is mended."""


@app.command("list")
def list_letters(
    ctx: typer.Context,
    *,
    error: ErrorCode = None,
    as_json: LinesOfJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the dead letters there are now: place, record, error, attempt and message; no texts."""
    settings = begin(ctx, bootstrap)
    found = asyncio.run(_collect(settings, (), error))
    if as_json:
        for one in found:
            say(as_line(one))
        return
    for one in found:
        for line in as_lines(one):
            say(line)
    if not found:
        say("no dead letters")


@app.command()
def show(ctx: typer.Context, places: Places, *, key_file: KeyFile = None, bootstrap: Bootstrap = None) -> None:
    """Show dead letters whole, each as JSON; key, value and headers in Base64, for they may be anything.

    A letter without its whole record says so in "kept"; an encrypted letter names its key in "sealed_to".
    """
    import msgspec

    from headrace.client.dead_letters import opened

    settings = begin(ctx, bootstrap)
    key = _key(key_file)
    for found in asyncio.run(_collect(settings, parse_places(places), None)):
        one = opened(found, key)
        held = {name: said for name, said in (("kept", one.kept), ("sealed_to", one.sealed_to)) if said is not None}
        say(msgspec.json.format(msgspec.json.encode({**msgspec.to_builtins(one.letter), **held})).decode())


@app.command()
def keygen(out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the private key goes.")]) -> None:
    """Make a key pair for dead letters that only operators can read; print the settings for workers and trainers.

    Keep the private key with the people who read dead letters. No worker needs it, and without it nobody can open them.
    """
    from headrace.security.keys import SEALING, key_id, make_key, public_key_text

    public = make_key(out)
    say(f"# the private key is in {out}; key {key_id(public)}")
    say(f'[dead_letters]\nkeep = "encrypted"\npublic_key = "{public_key_text(SEALING, public)}"')


@app.command()
def replay(
    ctx: typer.Context,
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION@OFFSET]...", help="The places of letters.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All letters that were not replayed yet.")] = False,
    error: ErrorCode = None,
    max_attempts: Annotated[int, typer.Option(min=1, help="Leave out letters with so many attempts or more.")] = 3,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TOPIC", help="Publish the named letters to this topic.")
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Also replay letters whose record is no longer in the log.")
    ] = False,
    key_file: KeyFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish requests and labels again as they were, with their attempt counter raised.

    A record goes to the configured requests or labels topic, whatever its letter says, and only if the log still holds
    it at its place. A record that fails again becomes a new dead letter with a higher attempt. A replay leaves a mark
    on the topic, and --all skips marked letters; to replay one again, name its place. A replayed label replaces a newer
    one with the same id, so look first.
    """
    if every == bool(places):
        raise typer.BadParameter("name places, or --all.")
    settings = begin(ctx, bootstrap)
    targets = targets_of(settings, to, parsed := parse_places(places or []), unverified=unverified)
    done = asyncio.run(_replay(settings, parsed, error, max_attempts, _key(key_file), targets))
    say(
        f"replayed {done.replayed}, left {done.left} that were tried {quantity(max_attempts, 'time')} or more or are "
        f"too large, {done.before} that were replayed before, and refused {done.refused.total()}"
    )
    for why, count in done.refused.items():
        say(f"refused {count} {why}")


@app.command()
def purge(
    ctx: typer.Context,
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION@OFFSET]...", help="Delete up to these places.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All letters that are there now.")] = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Delete dead letters for good: all, or those of a partition up to and including a named place.

    Kafka deletes only from the beginning of a partition. The marks of replays go with the letters.
    """
    if every == bool(places):
        raise typer.BadParameter("name places, or --all.")
    settings = begin(ctx, bootstrap)
    topic = settings.topics.names().dead_letters
    before = asyncio.run(_ends(settings, topic, parse_places(places or [])))
    counts, waiting = asyncio.run(_counted(settings, before))
    count = counts.total()
    if not count and not any(before.values()):
        say(f"{topic} holds no dead letters")
        return
    say(f"{quantity(count, 'dead letter')} on {topic}, {waiting:,} of them never replayed")
    confirm("Delete them for good?", yes=yes)
    asyncio.run(_delete(settings, before, counts))
    say(f"deleted {quantity(count, 'dead letter')} on {topic}")


def targets_of(settings: Settings, to: str | None, places: Sequence[tuple[int, int]], *, unverified: bool) -> Targets:
    """Where letters may be published again. Raises TargetError for a topic that ``--to`` must not name."""
    import msgspec

    from headrace.client.dead_letters import Targets

    names = settings.topics.names()
    if to is not None and not places:
        raise TargetError("--to takes letters that you looked at: name their places instead of --all.")
    if to is not None and to in set(msgspec.structs.astuple(names)) - {names.requests, names.labels}:
        raise TargetError(f"--to {to}: only headrace's own programs write this topic; a replay there would forge it.")
    return Targets(frozenset((names.requests, names.labels)), to, unverified)


def parse_places(places: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Parse ``PARTITION@OFFSET``. Raises PlaceError."""
    parsed = []
    for one in places:
        partition, _, offset = one.partition("@")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise PlaceError(f"{one}: write PARTITION@OFFSET, as `headrace dead-letters list` shows it.")
        parsed.append((int(partition), int(offset)))
    return tuple(parsed)


def as_lines(found: Found) -> tuple[str, str]:
    """One dead letter for people: what it is, and below it the message, on lines that letters can't add to."""
    from headrace.core.text import printable

    letter = found.letter
    record = place(letter.topic, letter.partition, letter.offset)
    about = f"{found.partition}@{found.offset}  {record}  {letter.stage}: {letter.error}, attempt {letter.attempt}"
    return printable(about), f"  {printable(letter.message.removeprefix(f'{record}: '))}"


def as_line(found: Found) -> str:
    """One dead letter as JSON, without key, value and headers."""
    import msgspec

    fields = msgspec.to_builtins(found.letter)
    fields = {name: value for name, value in fields.items() if name not in ("key", "value", "headers")}
    fields["attempt"] = found.letter.attempt
    return msgspec.json.encode({"place": f"{found.partition}@{found.offset}", **fields}).decode()


async def _letters(settings: Settings, places: Sequence[tuple[int, int]], error: str | None) -> AsyncIterator[Found]:
    from headrace.client.dead_letters import read_dead_letters

    topic = settings.topics.names().dead_letters
    seen = set()
    async for found in read_dead_letters(cluster_of(settings), topic, places=places):
        seen.add((found.partition, found.offset))
        if error in (None, found.letter.error):
            yield found
    if absent := sorted(set(places) - seen):
        raise PlaceError(f"{topic} has no dead letter at {absent[0][0]}@{absent[0][1]}.")


async def _collect(settings: Settings, places: Sequence[tuple[int, int]], error: str | None) -> list[Found]:
    return [found async for found in _letters(settings, places, error)]


class _Done(NamedTuple):
    """How many letters were replayed, left for good, or left because they were replayed before; and the refused by
    reason.
    """

    replayed: int
    left: int
    before: int
    refused: Counter[str]


class _Progress:
    """How far the replay of ``places`` has come, or of all letters if no places are named."""

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        self.replayed = 0
        self.named = bool(places)
        self._waiting = list(places)
        self._under_way: str | None = None

    def reach(self, found: Found) -> None:
        """Note that the replay has come to this letter."""
        self._waiting = [place for place in self._waiting if place != (found.partition, found.offset)]

    @contextmanager
    def replaying(self, found: Found) -> Iterator[None]:
        """Wraps the replay of a letter."""
        self._under_way = f"{found.partition}@{found.offset}"
        yield
        self._under_way = None
        self.replayed += 1

    def known(self) -> str:
        """Which letters were replayed and how to go on, in words for people."""
        letters = "1 letter was" if self.replayed == 1 else f"{self.replayed:,} letters were"
        unknown = f", and of {self._under_way} it is unknown: a replay may publish it twice" if self._under_way else ""
        if self.named:
            waiting = _listed([f"{partition}@{offset}" for partition, offset in self._waiting])
            return f"{letters} replayed{unknown}." + (f" Not replayed yet: {waiting}." if waiting else "")
        return f"{letters} replayed{unknown}. The same command goes on: it leaves out what was replayed."


async def _replay(
    settings: Settings,
    places: Sequence[tuple[int, int]],
    error: str | None,
    max_attempts: int,
    key: PrivateKey | None = None,
    targets: Targets | None = None,
) -> _Done:
    """Replay letters; an error, or Ctrl-C, has a note of how many were replayed by then."""
    progress = _Progress(places)
    targets = targets or targets_of(settings, None, places, unverified=False)
    with noting(progress.known):
        return await _replay_each(settings, _letters(settings, places, error), max_attempts, key, targets, progress)


async def _replay_each(
    settings: Settings,
    found_letters: AsyncIterator[Found],
    max_attempts: int,
    key: PrivateKey | None,
    targets: Targets,
    progress: _Progress,
) -> _Done:
    from headrace.client.dead_letters import REPEATED, Originals, Replayed, opened, read_replayed, refused, replay
    from headrace.client.publishing import Publisher
    from headrace_schemas.errors import RequestTooLargeError

    cluster = cluster_of(settings)
    letters = settings.topics.names().dead_letters
    publishers = {letters: Publisher(cluster.producer, letters)}
    marked = Replayed() if progress.named else await read_replayed(cluster, letters)
    left = before = 0
    not_replayed = Counter[str]()
    done = set(marked.origins)
    try:
        async with Originals(cluster) as originals:
            async for sealed in found_letters:
                progress.reach(sealed)
                found = opened(sealed, key)
                letter = found.letter
                origin = place(letter.topic, letter.partition, letter.offset)
                if (found.partition, found.offset) in marked.places:
                    before += 1
                    done.add(origin)
                elif letter.attempt >= max_attempts or letter.error == RequestTooLargeError.code:
                    left += 1
                elif (why := await refused(found, targets, originals)) is not None:
                    not_replayed[why] += 1
                elif origin in done:
                    not_replayed[REPEATED] += 1
                else:
                    # Requests and labels are dead-lettered to one topic; each goes back to its own.
                    topic, partition = (
                        targets.named or letter.topic,
                        letter.partition if targets.named is None else None,
                    )
                    if topic not in publishers:
                        publishers[topic] = Publisher(cluster.producer, topic)
                    with progress.replaying(found):
                        await replay(publishers[topic], publishers[letters], found, partition)
                    done.add(origin)
    finally:
        for publisher in publishers.values():
            await publisher.stop()
    return _Done(progress.replayed, left, before, not_replayed)


async def _ends(settings: Settings, topic: str, places: Sequence[tuple[int, int]]) -> dict[TopicPartition, int]:
    """For each partition, the offset before which to delete. Raises PlaceError and a KafkaError."""
    from headrace.kafka.interface import TopicPartition, UnknownTopicError, connected

    async with connected(cluster_of(settings).consumer()) as consumer:
        names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
        if not names:
            raise UnknownTopicError(f"There is no topic {topic} to purge.")
        ends = await consumer.end_offsets(names)
    if not places:
        return ends
    before: dict[TopicPartition, int] = {}
    for partition, offset in places:
        name = TopicPartition(topic, partition)
        if offset >= ends.get(name, 0):
            raise PlaceError(f"{topic} has no dead letter at {partition}@{offset}.")
        before[name] = max(offset + 1, before.get(name, 0))
    return before


async def _counted(settings: Settings, before: Mapping[TopicPartition, int]) -> tuple[Counter[int], int]:
    """How many letters of each partition lie before those offsets, and how many of all were never replayed."""
    from headrace.client.dead_letters import read_replayed

    marked = await read_replayed(cluster_of(settings), settings.topics.names().dead_letters)
    ends = {name.partition: offset for name, offset in before.items()}
    counts, waiting = Counter[int](), 0
    async for found in _letters(settings, (), None):
        if found.offset < ends.get(found.partition, 0):
            counts[found.partition] += 1
            letter = found.letter
            origin = place(letter.topic, letter.partition, letter.offset)
            waiting += (found.partition, found.offset) not in marked.places and origin not in marked.origins
    return counts, waiting


async def _delete(settings: Settings, before: Mapping[TopicPartition, int], counts: Mapping[int, int]) -> None:
    """Delete partition by partition; an error, or Ctrl-C, has a note of what is gone by then."""
    gone: list[int] = []
    under_way: list[int] = []

    def known() -> str:
        deleted = sum(counts.get(number, 0) for number in gone)
        of = f" (all of {'partition' if len(gone) == 1 else 'partitions'} {_listed(gone)})" if gone else ""
        unknown = f", and of partition {_listed(under_way)} it is unknown" if under_way else ""
        return f"{deleted:,} dead letters were deleted{of}{unknown}. The same command may be run again."

    from headrace.kafka.interface import connected

    with noting(known):
        async with connected(cluster_of(settings).admin()) as admin:
            for name, offset in before.items():
                if offset:
                    under_way[:] = [name.partition]
                    await admin.delete_records({name: offset})
                    gone.append(name.partition)
                    under_way.clear()


def _listed(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers))


def _key(file: Path | None) -> PrivateKey | None:
    from headrace.security.keys import read_key

    return None if file is None else read_key(file)
