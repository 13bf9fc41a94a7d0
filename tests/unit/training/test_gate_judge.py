"""The judge over the twin, with real artifacts: what is measured reaches the verdict, and what can't be refuses."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headrace.kafka.errors import BrokerUnavailableError
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace.model.artifact import About, Artifact, assemble, save
from headrace.model.backends.interface import open_backend
from headrace.model.quantizing import quantize
from headrace.registry.versions import version_record
from headrace.training.answering import answer
from headrace.training.gate.judge import Traffic, decide
from headrace.training.gate.settings import GateSettings
from headrace.training.ranks.job import Outcome
from headrace.training.report import compare
from headrace_schemas.codec import encode_request
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Check, ClassifyRequest, Lineage, ModelVersion, Verdict
from tests.support.networks import VOCABULARY, random_artifact, random_network
from tests.support.signing import new_key
from tests.support.story import after_a_moment
from tests.support.turned_loop import EPOCH_MS, TurnedClock, run_turned

RANDOM = np.random.default_rng(4)
TEXTS = [" ".join(RANDOM.choice(VOCABULARY, 6)) for _ in range(80)]
LOOSE = GateSettings(max_changed=1.0, slower_by=1000.0)


def published(store: Path, artifact: Artifact) -> ModelVersion:
    uri = str(store / artifact.version)
    save(artifact, uri)
    return version_record(artifact, name="m", uri=uri, now_ms=0)


def outcome_of(candidate: Artifact, champion: Artifact | None = None) -> Outcome:
    """What a training would have written whose candidate is right on every test row."""
    answers = answer(open_backend("cpu", candidate), TEXTS)
    before = () if champion is None else answer(open_backend("cpu", champion), TEXTS)
    return Outcome(
        uri="",
        version=candidate.version,
        sha256=candidate.sha256,
        size=candidate.size,
        float_size=candidate.size,
        lineage=Lineage(source="labels", digest="d", rows=80),
        report=compare(answers, answers),
        float_report=compare(answers, answers),
        truth=tuple(answers),
        answers=tuple(answers),
        float_answers=tuple(answers),
        champion_answers=tuple(before),
        latency_us=10.0,
        champion_latency_us=None if champion is None else 10.0,
        epochs=1,
        seconds=1.0,
    )


class Away:
    """Faults of a twin whose records can't be fetched."""

    async def point(self, member: str, name: str) -> None:
        if name == "fetch.before":
            raise BrokerUnavailableError("No broker answers at 127.0.0.1:1.")


def decided(
    candidate: ModelVersion,
    champion: ModelVersion | None,
    outcome: Outcome,
    settings: GateSettings = LOOSE,
    *,
    requests: Sequence[str] = TEXTS,
    faults: Away | None = None,
    trusted: Sequence[str] = (),
) -> Verdict:
    async def main() -> Verdict:
        clock = TurnedClock()
        cluster = MemoryCluster(clock, faults=faults)
        cluster.create_topic(TopicSpec(name="requests", partitions=1))
        records = [Outgoing(encode_request(ClassifyRequest(text=text))) for text in requests]
        if records:
            await cluster.producer().send_batch("requests", 0, records)
        try:
            return await decide(
                candidate,
                champion,
                outcome,
                traffic=Traffic(cluster, "requests", RequestShape()),
                settings=settings,
                trusted=trusted,
                clock=clock,
                offload=after_a_moment,
                randomness=np.random.default_rng(1),
            )
        finally:
            await cluster.close()

    return run_turned(main())


def check(verdict: Verdict, name: str) -> Check:
    return next(one for one in verdict.checks if one.name == name)


def test_a_first_version_is_judged_by_itself(tmp_path: Path) -> None:
    artifact = random_artifact(1)
    verdict = decided(published(tmp_path, artifact), None, outcome_of(artifact))
    assert verdict.promoted
    assert verdict.champion is None
    assert verdict.decided_at_ms >= EPOCH_MS
    assert {one.name for one in verdict.checks} == {"chance", "agreement", "size", "latency"}


def test_a_candidate_is_compared_with_the_champion_on_test_rows_and_on_requests(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    champion = published(tmp_path, theirs)
    verdict = decided(published(tmp_path, ours), champion, outcome)
    changed = sum(one != other for one, other in zip(outcome.answers, outcome.champion_answers, strict=True))
    assert verdict.promoted
    assert verdict.champion == champion.version
    assert check(verdict, "macro-f1").value == pytest.approx(
        100 * (1 - compare(outcome.truth, outcome.champion_answers).macro_f1)
    )
    # The requests are the test texts.
    assert check(verdict, "replay").value == changed / len(TEXTS) > 0.25
    assert f"{changed} of the last {len(TEXTS)} requests change" in verdict.reason


def test_a_worse_candidate_is_left_as_challenger_with_every_reason(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    outcome = msgspec.structs.replace(outcome, truth=outcome.champion_answers, float_answers=outcome.champion_answers)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome, GateSettings())
    assert not verdict.promoted
    assert {one.name for one in verdict.checks if not one.passed} == {
        "macro-f1",
        "macro-f1-interval",
        "agreement",
        "replay",
    }


def test_answers_below_the_threshold_are_replayed_as_readers_see_them(tmp_path: Path) -> None:
    network = quantize(random_network(1))
    plain, careful = assemble(network, About()), assemble(network, About(threshold=1.0))
    verdict = decided(published(tmp_path, careful), published(tmp_path, plain), outcome_of(careful, plain))
    assert check(verdict, "replay").value > 0, "a score of 1 is below no threshold, others are"
    changes = check(verdict, "replay").detail.partition(": ")[2].split("; ")
    assert all(change.endswith("mostly to (no label)") for change in changes), changes


def test_without_requests_the_replay_says_so_and_passes(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome_of(ours, theirs), requests=())
    assert verdict.promoted
    assert "0 requests could be replayed" in verdict.reason


def test_a_replay_can_be_turned_off(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    settings = msgspec.structs.replace(LOOSE, replay=0)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome_of(ours, theirs), settings)
    assert verdict.promoted
    assert "replay" not in {one.name for one in verdict.checks}


@pytest.mark.parametrize("lost", ["candidate", "champion", "kafka"])
def test_what_cannot_be_replayed_is_never_promoted(tmp_path: Path, lost: str) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    candidate, champion = published(tmp_path, ours), published(tmp_path, theirs)
    if lost == "candidate":
        Path(candidate.uri).unlink()
    if lost == "champion":
        Path(champion.uri).write_bytes(Path(candidate.uri).read_bytes())
    verdict = decided(candidate, champion, outcome_of(ours, theirs), faults=Away() if lost == "kafka" else None)
    assert not verdict.promoted
    assert [one.name for one in verdict.checks if not one.passed] == ["replay"]
    assert "the last requests could not be replayed" in verdict.reason


def test_a_champion_that_the_training_did_not_answer_is_not_replaced(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome_of(ours))
    assert [one.name for one in verdict.checks if not one.passed] == ["macro-f1"]
    assert "the training holds no answers of it" in verdict.reason


def test_the_same_training_gets_the_same_verdict(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    candidate, champion, outcome = published(tmp_path, ours), published(tmp_path, theirs), outcome_of(ours, theirs)
    assert decided(candidate, champion, outcome) == decided(candidate, champion, outcome)


def test_a_champion_that_no_trusted_key_signed_is_not_replayed_so_nothing_is_promoted(tmp_path: Path) -> None:
    own = new_key(tmp_path / "own.pem")
    candidate, champion = random_artifact(1), random_artifact(2)
    signed, unsigned = own.sign(published(tmp_path, candidate)), published(tmp_path, champion)
    outcome = outcome_of(candidate, champion)
    refused = decided(signed, unsigned, outcome, trusted=[own.public])
    assert not refused.promoted
    assert "is not signed" in check(refused, "replay").detail
    assert check(decided(signed, own.sign(unsigned), outcome, trusted=[own.public]), "replay").value < 1.0
    # Nor is a candidate whose record somebody else put in the place of ours.
    other = new_key(tmp_path / "other.pem")
    foreign = decided(other.sign(signed), own.sign(unsigned), outcome, trusted=[own.public])
    assert "which is not trusted here" in check(foreign, "replay").detail
