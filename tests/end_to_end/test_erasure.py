"""A text that was published, trained on and erased is in nothing of the next version."""

from __future__ import annotations

import re
import sys

import pytest

from headrace.registry.loading import load_version
from headrace.training.ranks.agreeing import agree
from headrace.training.ranks.exchange import Alone
from headrace.training.ranks.job import TopicSource
from headrace.training.ranks.labels import read_partitions
from headrace_load.processes import headrace
from headrace_schemas.codec import decode_label

pytestmark = [
    pytest.mark.apache,
    pytest.mark.skipif(sys.platform != "linux", reason="the run that it looks at needs /proc"),
]


async def snapshot(learnt, version):
    """The rows of ``version``, read from its own offsets as its ranks read them."""
    ranges = version.lineage.offsets
    source = TopicSource(topic=learnt.topic("labels"), ranges=ranges, max_text_bytes=64 * 1024)
    shard = await read_partitions(learnt.cluster, source, [one.partition for one in ranges])
    return agree(shard, Alone())


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
    first, second = (load_version(version, ()) for version in await learnt.versions())
    quoted = [canary.text for canary in first.about.canaries if any(text.startswith(canary.text) for text in erased)]
    assert len(quoted) == 1
    assert not any(text.startswith(canary.text) for canary in second.about.canaries for text in erased)


async def test_the_report_of_the_version_says_how_many_texts_were_erased(learnt):
    _, second = await learnt.versions()
    at = ("--bootstrap", learnt.bootstrap, "--set", f"topics.prefix={learnt.prefix}")
    printed = await headrace(*at, "models", "show", second.version)
    assert re.search(r"left out, erased +2 *$", printed, re.MULTILINE), printed
