"""The judge over the twin, with real artifacts: what is measured reaches the verdict, and what can't be refuses."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headrace.core.gate import LEAST_ACROSS_SPLITS
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicSpec
from headrace.learning.distributed.job import Compared, Judged, Outcome
from headrace.learning.evaluate import answer, compare, compare_paired
from headrace.model.artifact import About, Artifact, assemble, save
from headrace.model.backends.interface import open_backend
from headrace.model.quantizing import quantize
from headrace.registry.versions import version_record
from headrace.trainer.gate import Traffic, decide
from headrace.trainer.settings import GateSettings
from headrace_schemas.codec import encode_request
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Check, ClassifyRequest, Lineage, ModelVersion, Verdict
from tests.support.memory_kafka import MemoryCluster
from tests.support.networks import VOCABULARY, random_artifact, random_network
from tests.support.places import ANYWHERE
from tests.support.signing import new_key
from tests.support.turned_loop import EPOCH_MS, TurnedClock, run_turned
from tests.support.turned_tests import after_a_moment

RANDOM = np.random.default_rng(4)
TEXTS = [" ".join(RANDOM.choice(VOCABULARY, 6)) for _ in range(80)]
# A random network answers few of its labels, which are then the only true ones.
LOOSE = GateSettings(max_changed=1.0, slower_by=1000.0, untested_classes=1.0)


def file_of(version: ModelVersion) -> Path:
    return Path(version.uri.removeprefix("file://"))


def published(store: Path, artifact: Artifact) -> ModelVersion:
    uri = str(store / artifact.version)
    save(artifact, uri)
    return version_record(artifact, name="m", where=ANYWHERE.locate(uri), now_ms=0)


def compared(version: Artifact, answers: Sequence[str]) -> Compared:
    """Answers of a version that was trained by the same split, on another source."""
    return Compared(
        version=version.version,
        split="a-key/a-hashing",
        answers=tuple(answers),
        fair=(True,) * len(answers),
        known=None,
        latency_us=10.0,
    )


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
        lineage=Lineage(source="labels", digest="d", rows=80, split="a-key/a-hashing"),
        report=compare(answers, answers),
        float_report=compare(answers, answers),
        truth=tuple(answers),
        answers=tuple(answers),
        float_answers=tuple(answers),
        latency_us=10.0,
        champion=None if champion is None else compared(champion, before),
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
    shape: RequestShape = RequestShape(),  # noqa: B008 - frozen
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
                traffic=Traffic(cluster, "requests", shape),
                settings=settings,
                trusted=trusted,
                places=ANYWHERE,
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
    changed = sum(one != other for one, other in zip(outcome.answers, outcome.champion.answers, strict=True))
    assert verdict.promoted
    assert verdict.champion == champion.version
    assert check(verdict, "macro-f1").value == pytest.approx(
        100 * (1 - compare(outcome.truth, outcome.champion.answers).macro_f1)
    )
    # The requests are the test texts.
    assert check(verdict, "replay").value == changed / len(TEXTS) > 0.25
    assert f"{changed} of the last {len(TEXTS)} requests change" in verdict.reason


def test_a_worse_candidate_is_left_as_challenger_with_every_reason(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    outcome = msgspec.structs.replace(outcome, truth=outcome.champion.answers, float_answers=outcome.champion.answers)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome, GateSettings())
    assert not verdict.promoted
    assert {one.name for one in verdict.checks if not one.passed} == {
        "chance",
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


def judged_on_rows(tmp_path: Path, truth: Sequence[str], answers: Sequence[str]) -> Verdict:
    """The verdict of the gate as it is set by default on a first version that answers so."""
    artifact = random_artifact(1)
    outcome = msgspec.structs.replace(
        outcome_of(artifact), truth=tuple(truth), answers=tuple(answers), float_answers=tuple(answers)
    )
    return decided(published(tmp_path, artifact), None, outcome, GateSettings())


def test_a_version_that_ignores_the_text_is_not_promoted_for_want_of_rows_of_a_rare_class(tmp_path: Path) -> None:
    common, rare, *_ = random_artifact(1).labels
    verdict = judged_on_rows(tmp_path, [common] * 50, [common] * 50)
    assert {"chance", "untested-classes"} <= {one.name for one in verdict.checks if not one.passed}
    assert "can't tell: 50 test rows, all of one class" in check(verdict, "chance").detail
    assert rare in check(verdict, "untested-classes").detail
    with_one = judged_on_rows(tmp_path, [common] * 49 + [rare], [common] * 50)
    assert not check(with_one, "chance").passed


def test_a_version_of_few_test_rows_is_not_promoted_however_well_it_does(tmp_path: Path) -> None:
    labels = (random_artifact(1).labels * 9)[:9]
    for truth, answers in ((labels, labels), (labels, labels[::-1]), (labels[:1], labels[:1])):
        verdict = judged_on_rows(tmp_path, truth, answers)
        assert not verdict.promoted
        assert verdict.reason.startswith(f"can't tell: {len(truth)} test rows, and gate.least_rows is 10")
        assert "label more texts" in verdict.reason


def test_a_verdict_on_no_row_at_all_can_be_read_and_fails(tmp_path: Path) -> None:
    verdict = judged_on_rows(tmp_path, (), ())
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    assert {one.name for one in verdict.checks if not one.passed} == {"chance", "untested-classes", "agreement"}


def test_requests_of_another_shape_are_no_replay(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    settings = msgspec.structs.replace(LOOSE, replay=40)
    before = published(tmp_path, theirs)
    broken = decided(
        published(tmp_path, ours), before, outcome_of(ours, theirs), settings, shape=RequestShape(text_path="body")
    )
    assert [one.name for one in broken.checks if not one.passed] == ["replay"]
    assert "40 of the last 40 requests hold no text" in broken.reason


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
        file_of(candidate).unlink()
    if lost == "champion":
        file_of(champion).write_bytes(file_of(candidate).read_bytes())
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


def judged_beside(tmp_path: Path, **changes: object) -> Verdict:
    """The verdict on a candidate that is right, beside a champion whose rows of the outcome are changed."""
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    champion = msgspec.structs.replace(outcome.champion, **changes)
    outcome = msgspec.structs.replace(outcome, champion=champion)
    return decided(published(tmp_path, ours), published(tmp_path, theirs), outcome)


def test_across_two_splits_only_rows_count_that_both_call_test(tmp_path: Path) -> None:
    fair = tuple(row % 2 == 0 for row in range(len(TEXTS)))
    verdict = judged_beside(tmp_path, split="another-key/a-hashing", fair=fair)
    outcome = outcome_of(random_artifact(1), random_artifact(2))
    ours, theirs = outcome.truth[::2], outcome.champion.answers[::2]
    assert "40 test rows" in check(verdict, "macro-f1").detail
    assert check(verdict, "macro-f1").value == pytest.approx(
        100 * compare_paired(ours, ours, theirs, resamples=100, randomness=np.random.default_rng(1)).difference
    )


def test_too_few_rows_that_both_splits_call_test_prove_nothing_and_the_verdict_says_what_to_do(tmp_path: Path) -> None:
    fair = tuple(row < LEAST_ACROSS_SPLITS - 1 for row in range(len(TEXTS)))
    verdict = judged_beside(tmp_path, split="another-key/a-hashing", fair=fair)
    assert [one.name for one in verdict.checks if not one.passed] == ["macro-f1"]
    assert "only 29 rows are test rows of both; below 30 nobody can tell" in verdict.reason
    assert "`headrace models promote VERSION --alias champion`" in verdict.reason
    assert "gate.holdout" in verdict.reason


def test_rows_that_were_moved_within_one_split_are_left_out_and_the_others_decide_however_few(tmp_path: Path) -> None:
    fair = tuple(row < LEAST_ACROSS_SPLITS - 1 for row in range(len(TEXTS)))
    verdict = judged_beside(tmp_path, split="a-key/a-hashing", fair=fair)
    assert "29 test rows" in check(verdict, "macro-f1").detail


def test_a_champion_that_may_have_been_trained_on_every_test_row_is_not_compared(tmp_path: Path) -> None:
    verdict = judged_beside(tmp_path, split="a-key/a-hashing", fair=(False,) * len(TEXTS))
    assert [one.name for one in verdict.checks if not one.passed] == ["macro-f1"]
    assert "may have been trained on every test row" in verdict.reason


def test_a_champion_of_a_split_that_is_not_known_here_may_have_been_trained_on_the_test_rows(tmp_path: Path) -> None:
    verdict = judged_beside(tmp_path, split="another-key/a-hashing", fair=None)
    assert [one.name for one in verdict.checks if not one.passed] == ["macro-f1"]
    assert "another-key/a-hashing, which is not known here" in verdict.reason
    assert "trainer.previous_split_key" in verdict.reason


def test_rows_that_the_champions_snapshot_held_are_judged_apart_from_those_that_came_since(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    # The champion was right on the first 20 rows, which it knew; the candidate is right on the 60 that came since.
    truth = outcome.champion.answers[:20] + outcome.answers[20:]
    known = tuple(row < 20 for row in range(80))
    champion = msgspec.structs.replace(outcome.champion, known=known)
    outcome = msgspec.structs.replace(outcome, truth=truth, champion=champion)
    settings = msgspec.structs.replace(LOOSE, uncertain_by=100.0)
    verdict = decided(published(tmp_path, ours), published(tmp_path, theirs), outcome, settings)
    assert [one.name for one in verdict.checks if not one.passed] == ["macro-f1-known"]
    assert "on 60 that came since its snapshot" in check(verdict, "macro-f1").detail
    assert check(verdict, "macro-f1-known").value < -50


def test_the_baseline_is_compared_beside_the_champion_and_the_verdict_names_the_one_from_now_on(tmp_path: Path) -> None:
    ours, theirs, best = random_artifact(1), random_artifact(2), random_artifact(3)
    outcome = outcome_of(ours, theirs)
    records = [published(tmp_path, one) for one in (ours, theirs, best)]
    first = decided(records[0], None, outcome_of(ours))
    assert first.baseline == ours.version
    # Right on every row, and so better than the champion, which was the baseline, for certain.
    assert decided(records[0], records[1], outcome).baseline == ours.version
    as_good = msgspec.structs.replace(outcome, baseline=compared(best, outcome.truth))
    kept = decided(records[0], records[1], as_good)
    assert kept.promoted
    assert kept.baseline == best.version
    worse = msgspec.structs.replace(as_good, answers=outcome.champion.answers, float_answers=outcome.champion.answers)
    refused = decided(records[0], records[1], worse)
    assert "macro-f1-baseline" in {one.name for one in refused.checks if not one.passed}
    assert "macro-f1" not in {one.name for one in refused.checks if not one.passed}
    assert refused.baseline == best.version


def test_the_fp32_original_is_compared_on_the_rows_of_the_holdout_where_they_decide(tmp_path: Path) -> None:
    ours = random_artifact(1)
    outcome = outcome_of(ours)
    # Of the test rows none is answered as by the original.
    outcome = msgspec.structs.replace(outcome, float_answers=tuple("none" for _ in outcome.answers))
    candidate = published(tmp_path, ours)
    assert not check(decided(candidate, None, outcome, LOOSE), "agreement").passed
    alike = msgspec.structs.replace(outcome, holdout=Judged(outcome.truth, outcome.answers, outcome.answers))
    agreed = check(decided(candidate, None, alike, LOOSE), "agreement")
    assert (agreed.passed, agreed.value) == (True, 1.0)
    assert "100.00% of the 80 rows of gate.holdout" in agreed.detail
    # A training that began before its original answered the holdout.
    unanswered = msgspec.structs.replace(outcome, holdout=Judged(outcome.truth, outcome.answers))
    untold = check(decided(candidate, None, unanswered, LOOSE), "agreement")
    assert not untold.passed
    assert "no rows of gate.holdout that the fp32 original answered" in untold.detail


def test_the_rows_of_the_holdout_decide_and_not_the_test_rows(tmp_path: Path) -> None:
    ours, theirs = random_artifact(1), random_artifact(2)
    outcome = outcome_of(ours, theirs)
    # By the test rows the candidate is right everywhere, by the holdout the champion is.
    champion = msgspec.structs.replace(
        outcome.champion, fair=None, holdout_answers=outcome.champion.answers, spared=True
    )
    holdout = Judged(outcome.champion.answers, outcome.answers, outcome.answers)
    outcome = msgspec.structs.replace(outcome, champion=champion, holdout=holdout)
    candidate, before = published(tmp_path, ours), published(tmp_path, theirs)
    settings = msgspec.structs.replace(LOOSE, source_share=0.1)
    verdict = decided(candidate, before, outcome, settings)
    assert {"macro-f1", "macro-f1-interval"} <= {one.name for one in verdict.checks if not one.passed}
    assert "80 rows of gate.holdout)" in check(verdict, "macro-f1").detail
    assert "80 rows of gate.holdout" in check(verdict, "chance").detail
    assert "source-share" not in {one.name for one in verdict.checks}
    # And the other way round, although nobody knows what split divided the champion's rows.
    right = msgspec.structs.replace(outcome, holdout=Judged(outcome.answers, outcome.answers, outcome.answers))
    assert check(decided(candidate, before, right, settings), "macro-f1").passed
    unanswered = msgspec.structs.replace(right, champion=msgspec.structs.replace(champion, holdout_answers=()))
    assert not check(decided(candidate, before, unanswered, settings), "macro-f1").passed
