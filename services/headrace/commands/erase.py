"""`headrace labels erase`: take texts out of all versions to come, with what teachers said of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, By, begin, cluster_of, remark, say, who
from headrace.commands.sending import producing, send_all
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.core.text import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.kafka.interface import Cluster, Outgoing
    from headrace.learning.data.labels import There
    from headrace.learning.data.machine_labels import LastMachineRecord

AGAIN = "The same command may be run again: it erases what is still there."


def erase(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of labels.")] = None,
    *,
    text: Annotated[
        list[str] | None, typer.Option(help="A text that was published without an id. May be repeated.")
    ] = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Erase labelled texts from every version that is trained from now on. Existing versions still know them.

    Teachers' labels of the texts go too, and no teacher is asked about them again. It says which ids had a label, and
    ends with 1 when there was no label of a person or a teacher.
    """
    from headrace.client.labels import ids_by_every_hashing, text_ids, tombstone

    if any("\ud800" <= character <= "\udfff" for one in (*(ids or ()), *(text or ())) for character in one):
        raise UserError("An id or a text is not UTF-8, so no label has it: nothing was erased.")
    settings = begin(ctx, bootstrap)
    names = settings.topics.names()
    topic = names.labels
    asked: dict[str, tuple[str, ...]] = {id_: (id_,) for id_ in ids or ()}
    # A text may have had another id in an earlier release.
    asked |= {f"text {number}": tuple(ids_by_every_hashing([one])) for number, one in enumerate(text or (), start=1)}
    if not all([*(ids or ()), *text_ids(text or ())]) or not asked:
        raise UserError("There is nothing to erase: name ids, or --text with a text that has words.")
    doer = who(by)
    cluster, ids_asked = cluster_of(settings), list(dict.fromkeys(sum(asked.values(), ())))
    there = asyncio.run(_there(cluster, topic, ids_asked))
    # Teachers' labels first, because only the person's label under an id tells which text it is.
    texts = [*(text or ()), *(one.text for one in there or () if one.text)]
    taught = _erase_taught(cluster, names.machine_labels, texts)
    erased = None if there is None else {one.id for one in there}
    send_all(
        (tombstone(id_, doer) for id_ in (ids_asked if erased is None else sorted(erased))),
        producing(cluster, topic),
        noun="tombstone",
        topic=topic,
        go_on=lambda _: AGAIN,
    )
    if erased is None:
        say(f"published a tombstone for each to {topic}; without the right to read it, what was there is unknown")
        if ids:
            remark(f"WARNING: nor is it known which texts these ids had, so what {names.machine_labels} has stays")
        return
    for name, its_ids in asked.items():
        if not erased.intersection(its_ids):
            say(f"{name}: {topic} has no such label")
    say(f"erased {quantity(len(erased), 'label')} on {topic}")
    if not erased and not taught:
        raise typer.Exit(1)


def _erase_taught(cluster: Cluster, topic: str, texts: Sequence[str]) -> int:
    """Erase teachers' labels of ``texts``, bar these texts, and say so. Returns the number of erased labels."""
    from headrace.kafka.interface import NotAuthorizedError, Outgoing, UnknownTopicError
    from headrace.learning.data.machine_labels import erasure_of
    from headrace_schemas.codec import encode_machine_label
    from headrace_schemas.records import BarredText
    from headrace_schemas.topics import machine_labels_key

    if not texts:
        return 0
    try:
        erasure = erasure_of(texts, asyncio.run(_held(cluster, topic)))
        now_ms = SystemClock().now_ms()
        barred = [BarredText(text_key=key, barred_at_ms=now_ms) for key in erasure.barred]
        # Bar them first, because a teacher that is being asked may answer in between.
        records: list[Outgoing] = [Outgoing(encode_machine_label(one), machine_labels_key(one)) for one in barred]
        records += [Outgoing(None, key) for key in erasure.keys]
        send_all(iter(records), producing(cluster, topic), noun="record", topic=topic, go_on=lambda _: AGAIN)
    except UnknownTopicError:
        return 0
    except NotAuthorizedError as error:
        remark(
            f"WARNING: what teachers said of the text stays on {topic}: {error} Somebody with the rights of `headrace "
            "topics acl --role operator` has to erase it by --text"
        )
        return 0
    say(f"erased {quantity(len(erasure.keys), 'label')} of teachers on {topic}; barred {quantity(len(texts), 'text')}")
    return len(erasure.keys)


async def _held(cluster: Cluster, topic: str) -> list[LastMachineRecord]:
    from headrace.learning.data.machine_labels import read_machine_labels

    return await read_machine_labels(cluster, topic)


async def _there(cluster: Cluster, topic: str, ids: Sequence[str]) -> list[There] | None:
    """The labels of ``ids``, and those of further people for the same texts.

    None if unknown, because a user who only labels may write to the topic but not read it.

    Raises any other KafkaError.
    """
    from headrace.client.labels import is_second_of
    from headrace.kafka.interface import NotAuthorizedError
    from headrace.learning.data.labels import read_labels

    try:
        return [one for one in await read_labels(cluster, topic) if one.id in ids or is_second_of(one.id, ids)]
    except NotAuthorizedError:
        return None
