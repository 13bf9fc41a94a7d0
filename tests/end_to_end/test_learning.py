"""The loop on Apache Kafka, whole: `headrace demo --learning`, and what it left on the topics, read by others.

A text that was published, trained on and erased is in nothing of the next version.
"""

from __future__ import annotations

import itertools
import re
import sys
import zlib

import pytest

from headrace.client import Published
from headrace.learning.data.labels import read_partitions
from headrace.learning.data.split import UNKEYED
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import TopicSource
from headrace.learning.distributed.merge import merge_labels
from headrace.registry.versions import load_version
from headrace_load.processes import headrace
from headrace_schemas.codec import decode_label
from tests.support import demos
from tests.support.learning_path import RATE, Learnt, learn
from tests.support.log_audit import audit
from tests.support.places import ANYWHERE

pytestmark = [
    pytest.mark.apache,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def learnt(apache_bootstrap, tmp_path_factory) -> Learnt:
    """One run of the learning path for all tests that look at what it left behind."""
    return learn(apache_bootstrap, tmp_path_factory.mktemp("learning"))


def test_the_demo_ends_well_and_leaves_nothing_running(learnt):
    assert learnt.code == 0, learnt.printed
    assert learnt.left == {}
    assert learnt.files == []
    assert "\x1b" not in learnt.printed, "no terminal, so no escape sequences"


async def test_every_request_was_answered_exactly_once_through_three_swaps(learnt):
    requests = await learnt.records("requests")
    published = [Published(one.partition, one.offset, zlib.crc32(one.value)) for one in requests]
    async with learnt.client() as client:
        found = await audit(client, published, quiet_s=1.0)
    assert found.kept, found.line()
    assert found.by_status == {"ok": len(requests)}
    assert demos.audit(learnt.printed) == (len(requests), len(requests), 0, 0)


async def test_the_alias_went_to_version_1_to_2_back_and_to_2_again(learnt):
    first, second = await learnt.versions()
    log, moves = await learnt.models(), await learnt.moves()
    verdicts = [log.verdicts["default", version.version] for version in (first, second)]
    assert [move.alias.version for move in moves] == [one.version for one in (first, second, first, second)]
    assert verdicts[0].promoted
    assert verdicts[0].reason.startswith("the first version: macro-F1 is ")
    assert verdicts[1].champion == first.version
    # What a gate refuses (two texts a microsecond apart are a noisy measure) is promoted by hand, and that is said.
    second_reason = verdicts[1].reason if verdicts[1].promoted else "by hand"
    assert [move.alias.reason for move in moves] == [
        verdicts[0].reason,
        second_reason,
        "rolled back by hand",
        "by hand",
    ]
    for verdict in verdicts:
        assert f"gate: {'' if verdict.promoted else 'not '}promoted: {verdict.reason}" in learnt.printed


async def test_version_2_was_trained_by_2_ranks_on_all_labels_with_version_1_as_its_parent(learnt):
    first, second = await learnt.versions()
    assert (first.lineage.ranks, second.lineage.ranks) == (2, 2)
    assert second.parent == first.version
    ends = {record.partition: record.offset + 1 for record in await learnt.records("labels")}
    assert {one.partition: one.end for one in second.lineage.offsets} == ends
    assert all(old.end < new.end for old, new in zip(first.lineage.offsets, second.lineage.offsets, strict=True))


async def test_every_partition_was_answered_by_the_champions_one_after_another(learnt):
    versions: dict[int, list[str]] = {}
    async with learnt.client() as client, client.reader("beginning") as reader:
        while answers := await reader.read(timeout_s=1.0):
            for answer in answers:
                versions.setdefault(answer.partition, []).append(answer.result.version)
    champions = [move.alias.version for move in await learnt.moves()]
    assert len(versions) == 4
    for of_partition in versions.values():
        assert [version for version, _ in itertools.groupby(of_partition)] == champions


def test_the_waits_beside_each_swap_are_told_beside_those_of_the_stream(learnt):
    figure = r"([\d.,]+) ms"
    stream = re.search(rf"the whole stream: ([\d,]+) answers, median wait {figure}, p99 {figure}", learnt.printed)
    assert stream, learnt.printed
    assert int(stream[1].replace(",", "")) == demos.audit(learnt.printed)[1]
    for what in ("2, trained", "1, rollback", "2, promoted"):
        row = re.search(rf"{what} +│ +{figure} │ +{figure} │ +{figure} │ +([\d,]+) │", learnt.printed)
        assert row, learnt.printed
        assert int(row[4].replace(",", "")) >= 2 * RATE, "from a second before a swap to a second after it"


async def snapshot(learnt, version):
    """The rows of ``version``, read from its own offsets as its ranks read them."""
    ranges = version.lineage.offsets
    source = TopicSource(topic=learnt.topic("labels"), ranges=ranges, max_text_bytes=64 * 1024)
    shard = await read_partitions(learnt.cluster, source, [one.partition for one in ranges])
    return merge_labels(shard, Alone(), UNKEYED)


@pytest.fixture
async def erased(learnt) -> list[str]:
    """The texts that a tombstone erased."""
    records = await learnt.records("labels")
    gone = {record.key for record in records if record.value is None}
    return [decode_label(record.value).text for record in records if record.value is not None and record.key in gone]


async def test_an_erased_text_is_in_the_snapshot_of_the_version_before_and_not_of_the_next(learnt, erased):
    first, second = await learnt.versions()
    before, after = await snapshot(learnt, first), await snapshot(learnt, second)
    assert len(erased) == 2
    assert set(before.split.train.texts) & set(erased), "one of them was trained on"
    for rows in (after.split.train, after.split.valid, after.split.test):
        assert not set(rows.texts) & set(erased)
    assert (before.digest, after.digest) == (first.lineage.digest, second.lineage.digest)
    assert first.lineage.dropped.get("erased", 0) == 0
    assert after.dropped["erased"] == second.lineage.dropped["erased"] == 2


async def test_what_a_version_quotes_of_an_erased_text_is_not_in_the_next_ones_artifact(learnt, erased):
    first, second = (load_version(version, (), ANYWHERE) for version in await learnt.versions())
    quoted = [canary.text for canary in first.about.canaries if any(text.startswith(canary.text) for text in erased)]
    assert len(quoted) == 1
    assert not any(text.startswith(canary.text) for canary in second.about.canaries for text in erased)


async def test_the_report_of_the_version_says_how_many_texts_were_erased(learnt):
    _, second = await learnt.versions()
    at = ("--bootstrap", learnt.bootstrap, "--set", f"topics.prefix={learnt.prefix}")
    printed = await headrace(*at, "models", "show", second.version)
    assert re.search(r"left out, erased +2 *$", printed, re.MULTILINE), printed
