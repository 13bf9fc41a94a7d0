"""The loop on Apache Kafka, whole: `headrace demo --learning`, and what it left on the topics, read by others."""

from __future__ import annotations

import itertools
import re
import sys
import zlib

import pytest

from headrace.client import Published
from headrace_load.audit import audit
from tests.support import demos

pytestmark = [
    pytest.mark.apache,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


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
        assert int(row[4].replace(",", "")) >= 200, "a hundred requests a second, two seconds and more"
