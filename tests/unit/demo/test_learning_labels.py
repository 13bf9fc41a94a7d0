import random

from headrace.client.labels import publish_labels
from headrace.demo.learning.service import Keyed, in_two_parts, quotes, to_forget
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Part
from headrace.model.artifact import About, Canary, assemble
from headrace.model.quantizing import quantize
from headrace_schemas.codec import decode_label
from headrace_schemas.records import LabelledText
from tests.support.networks import random_network

ROWS = Rows(tuple(f"text {number}" for number in range(200)), ("x", "y") * 100)


def version(*quoted: str):
    label = assemble(quantize(random_network(3)), About()).labels[0]
    return assemble(quantize(random_network(3)), About(canaries=tuple(Canary(text, label) for text in quoted)))


def divided() -> tuple[list[Keyed], list[Keyed]]:
    return in_two_parts(ROWS, 0.6, random.Random(1))


def test_the_parts_are_all_rows_by_chance_each_with_an_id_of_its_own() -> None:
    first, rest = divided()
    assert (len(first), len(rest)) == (120, 80)
    both = first + rest
    assert len({one.id for one in both}) == len(ROWS)
    assert {(one.text, one.label) for one in both} == set(zip(ROWS.texts, ROWS.labels, strict=True))
    assert [one.text for one in first] != list(ROWS.texts[:120])


def test_what_is_forgotten_was_trained_on_or_is_quoted() -> None:
    first, rest = divided()
    quoted = next(one for one in first if UNKEYED.part_of(one.key) is Part.TEST)
    forgotten = to_forget(first, rest, version(quoted.text))
    trained, test = sorted(forgotten, key=lambda one: UNKEYED.part_of(one.key) is Part.TEST)
    assert test == quoted
    assert UNKEYED.part_of(trained.key) is Part.TRAIN
    assert trained in first


def test_the_same_text_of_another_id_is_forgotten_too() -> None:
    first, rest = divided()
    before = to_forget(first, rest, version())
    again = Keyed("another", before[0].text.upper(), before[0].label, before[0].key)
    assert to_forget(first, [*rest, again], version()) == [*before, again]


def test_a_quotation_that_could_be_of_two_texts_is_nobodys() -> None:
    first, rest = divided()
    assert to_forget(first, rest, version("text 1")) == to_forget(first, rest, version())


def test_the_quotations_of_some_texts_are_counted() -> None:
    first, _ = divided()
    some = version(first[0].text[:5], first[1].text, "of somebody else")
    assert quotes(some, first[:2]) == 2
    assert quotes(some, []) == 0


async def test_labels_are_published_by_id_and_erased_by_tombstones(memory_cluster: MemoryCluster) -> None:
    memory_cluster.create_topic(TopicSpec(name="labels", partitions=1))
    one, other = divided()[0][:2]
    await publish_labels(memory_cluster, "labels", labels=[one, other], erased=[one.id])
    records = memory_cluster.log(TopicPartition("labels", 0)).records
    assert [record.key.decode() for record in records] == [one.id, other.id, one.id]
    assert decode_label(records[1].value) == LabelledText(text=other.text, label=other.label)
    assert records[2].value is None
