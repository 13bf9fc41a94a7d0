"""The chaos runs in small: faults on real Apache Kafka that the checker finds survived, and broken workers that it
catches. All faults are run by `make chaos`.
"""

from __future__ import annotations

import sys

import msgspec
import pytest

from headrace.kafka.brokers import BrokerStartError, java_binary
from headrace_load.workload.texts import load_texts
from load.chaos.cluster import cluster
from load.chaos.faults import ALL
from load.chaos.run import run
from load.chaos.world import TEXTS
from load.made import made_artifact

FAULTS = {fault.name: fault for fault in ALL}
BROKEN = (sys.executable, "-m", "tests.support.broken_program")

pytestmark = [pytest.mark.apache, pytest.mark.slow]


@pytest.fixture
async def chaos(tmp_path):
    """Runs a fault, with workers of that program, on a cluster of one node; skips where Apache Kafka can't run."""
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    model = tmp_path / "model.safetensors"
    made_artifact(load_texts(TEXTS, 0), model, words=TEXTS.words)
    (tmp_path / "kafka").mkdir()
    async with cluster(1, tmp_path / "kafka") as one_node:

        async def strike(name, program=()):
            folder = tmp_path / f"{name}-{'-'.join(program[-1:])}"
            folder.mkdir()
            # How long partitions stand still is for `make chaos`, which has the machine for itself.
            fault = msgspec.structs.replace(FAULTS[name], program=tuple(program), name=folder.name, stall_s=None)
            return await run(fault, 0, one_node, model=model, folder=folder, patience_s=10)

        yield strike


async def test_faults_are_survived_and_a_worker_that_commits_before_it_publishes_is_found_out(chaos):
    for name in ("worker-killed-before-commit", "network-lost-acknowledgement"):
        outcome = await chaos(name)
        assert outcome.error is None, outcome
    broken = await chaos("worker-killed-before-publish", (*BROKEN, "CommitsFirst"))
    assert broken.error is not None
    assert broken.error.startswith("the promise was broken"), broken.error
    assert broken.checked.lost > 0


@pytest.mark.parametrize("broken", ["DropsABatch", "Reorders", "AnswersTwice"])
async def test_a_broken_worker_is_found_out_on_real_kafka(chaos, broken):
    outcome = await chaos("worker-terminated", (*BROKEN, broken))
    assert outcome.error is not None
    assert outcome.error.startswith("the promise was broken"), outcome.error


async def test_a_worker_that_answers_past_its_lease_is_found_out_on_real_kafka(chaos):
    outcome = await chaos("network-coordinator-alone", (*BROKEN, "OutlivesItsLease"))
    assert outcome.error is not None
    assert "more than a batch a partition" in outcome.error, outcome.error
