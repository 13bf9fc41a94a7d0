"""The models commands as a user runs them, on the twin: what they print and what they leave on the topic."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.core.errors import UserError
from headrace.kafka.interface import NotAuthorizedError, Outgoing
from headrace.model.errors import ArtifactError
from headrace.registry.aliases import NoPreviousVersionError
from headrace.registry.versions import VersionNotFoundError
from headrace_schemas.codec import encode_request, encode_result
from headrace_schemas.records import (
    Check,
    ClassifyRequest,
    ClassifyResult,
    Lineage,
    OffsetRange,
    ResultsClaim,
    Status,
    Verdict,
)
from tests.support.memory_kafka.cluster import MemoryProducer
from tests.support.models_site import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


@pytest.fixture
def three(site: Site) -> list[str]:
    """Three versions, published one after the other."""
    versions = [site.artifact(minute).version for minute in range(1, 4)]
    for version in versions:
        site.run("publish", version)
    return versions


def champion(site: Site) -> str:
    return site.log().aliases["default", "champion"].version


def test_publishing_moves_the_alias_and_records_a_path_that_works_from_anywhere(site: Site) -> None:
    first, second = site.artifact(1).version, site.artifact(2).version
    assert site.run("publish", first) == f"default: champion -> {first}\n"
    site.run("publish", second, "--reason", "newer")
    pointer = site.log().aliases["default", "champion"]
    assert (pointer.version, pointer.previous, pointer.reason) == (second, first, "newer")
    assert site.log().versions["default", first].uri == f"file://{site.folder / first}"


def test_a_version_published_from_another_place_is_refused_and_moved_on_demand(site: Site) -> None:
    version = site.artifact(1).version
    site.run("publish", version)
    first = site.log().versions["default", version]
    (site.folder / "elsewhere").mkdir()
    elsewhere = (site.folder / version).rename(site.folder / "elsewhere" / version)
    with pytest.raises(UserError, match=f"was published from file://{site.folder}/{version}.*--move"):
        site.run("publish", elsewhere)
    assert site.log().versions["default", version] == first
    site.run("publish", elsewhere, "--move")
    moved = site.log().versions["default", version]
    assert (moved.uri, moved.created_at_ms) == (f"file://{elsewhere}", first.created_at_ms)


def test_a_version_published_again_keeps_the_time_of_the_first(site: Site) -> None:
    version = site.artifact(0).version  # its file has no time
    site.run("publish", version)
    old = msgspec.structs.replace(site.log().versions["default", version], created_at_ms=7)
    site.publish(old)
    site.run("publish", version)
    assert site.log().versions["default", version] == old


def test_a_version_is_never_replaced_by_another_file(site: Site) -> None:
    version = site.artifact(1).version
    site.run("publish", version)
    site.publish(msgspec.structs.replace(site.log().versions["default", version], sha256="0" * 64))
    with pytest.raises(UserError, match="with another file"):
        site.run("publish", version, "--move")


def test_versions_are_listed_for_programs_one_a_line(site: Site, three: list[str]) -> None:
    rows = [msgspec.json.decode(line) for line in site.run("list", "--json").splitlines()]
    assert [row["version"] for row in rows] == three
    assert [list(row["aliases"]) for row in rows] == [[], [], ["champion"]]
    assert {row["verdict"] for row in rows} == {None}


def test_promote_takes_a_name_the_beginning_of_one_of_its_hash_or_an_alias(site: Site, three: list[str]) -> None:
    first, second, third = three
    for wanted, expected in (
        (first, first),
        (third[:14], third),
        (second.rpartition("-")[2][:6], second),
        ("champion", second),
    ):
        site.run("promote", wanted, "--reason", "by me")
        assert champion(site) == expected
    site.run("promote", "champion", "--alias", "challenger")
    assert site.log().aliases["default", "challenger"].version == second


@pytest.mark.parametrize(
    ("wanted", "said"), [("1970", "is the beginning of 3 versions"), ("nope", "no version or alias")]
)
def test_a_version_that_is_not_clear_is_refused(site: Site, three: list[str], wanted: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        site.run("promote", wanted)
    assert champion(site) == three[-1]


def test_rollback_goes_back_and_forward_again(site: Site, three: list[str]) -> None:
    assert site.run("rollback") == f"default: champion -> {three[1]}, before {three[2]}\n"
    assert champion(site) == three[1]
    site.run("rollback")
    assert champion(site) == three[2]


def test_the_record_says_who_moved_an_alias_by_a_command(
    site: Site, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by() -> str | None:
        return site.log().aliases["default", "champion"].by

    user = pwd.getpwuid(os.getuid()).pw_name
    assert by() == user  # published
    for command in (["promote", three[0]], ["rollback"], ["pin"], ["unpin"]):
        site.run(*command, "--by", f"olga {command[0]}")
        assert by() == f"olga {command[0]}"
        site.run(*command)
        assert by() == user
    assert f", by {user}" in site.run("show", three[0])
    site.run("train", "--now", "--by", "olga")
    assert site.log().orders["default"].by == "olga"
    # As in a container whose user has no entry.
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    site.run("pin")
    assert by() == f"uid {os.getuid()}"
    for name in ("", " ", "x" * 201):
        with pytest.raises(UserError, match="--by"):
            site.run("unpin", "--by", name)


def test_rollback_without_anywhere_to_go_says_so(site: Site) -> None:
    site.run("publish", site.artifact(1).version)
    with pytest.raises(NoPreviousVersionError, match="nothing before"):
        site.run("rollback")


@pytest.mark.parametrize("command", [("rollback",), ("promote", "19700101T0002")])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_nothing_is_moved_to_an_artifact_that_cannot_be_loaded(
    site: Site, three: list[str], command: Sequence[str], damage: Callable[[Path], None]
) -> None:
    damage(site.folder / three[1])
    with pytest.raises(ArtifactError, match=three[1]):
        site.run(*command)
    assert champion(site) == three[2]
    site.run(*command, "--no-check")
    assert champion(site) == three[1]


def test_a_pin_holds_until_it_is_taken_off(site: Site, three: list[str]) -> None:
    assert "pinned" in site.run("pin")
    site.run("promote", three[0])
    assert site.log().aliases["default", "champion"].pinned
    assert "champion (pinned)" in site.run("list")
    assert "pinned" not in site.run("unpin")
    assert not site.log().aliases["default", "champion"].pinned
    with pytest.raises(UserError, match=r"no alias 'nobody' \(there: champion\)"):
        site.run("pin", "nobody")


def test_who_only_looks_needs_no_right_to_write(site: Site, three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: MemoryProducer) -> None:
        raise NotAuthorizedError("This user may not write to classify.models.")

    monkeypatch.setattr(MemoryProducer, "start", refuse)
    assert three[0] in site.run("list")
    assert three[2] in site.run("show", "champion")
    site.run("diff", three[0], three[1])
    site.run("prune", "--keep", "1", "--dry-run")
    with pytest.raises(NotAuthorizedError):
        site.run("rollback")


def verdict(version: str, *, promoted: bool) -> Verdict:
    checks = (
        Check("size", promoted, 2.0, 1.0, "the artifact has 2 MB"),
        Check("latency", True, 1.0, 9.0, "a text takes 1 us"),
    )
    return Verdict(
        name="default",
        version=version,
        promoted=promoted,
        reason="because",
        decided_at_ms=0,
        checks=checks,
        champion="v0",
    )


def test_the_list_shows_score_size_aliases_and_verdict(site: Site) -> None:
    artifact = site.artifact(1, metrics={"test_macro_f1": 0.91234})
    site.run("publish", artifact.version)
    site.publish(verdict(artifact.version, promoted=False))
    shown = site.run("list")
    for cell in (artifact.version, "champion", "refused", "0.9123", "1970-01-01 00:01:00Z", str(site.folder)):
        assert cell in shown


def test_show_tells_everything_of_a_version(site: Site) -> None:
    lineage = Lineage(
        source="classify.labels",
        digest="abc",
        rows=1234,
        offsets=(OffsetRange(0, 5, 900),),
        dropped={"erased": 7, "empty": 2},
        recipe='{"seed":3}',
        ranks=2,
        split="unkeyed/a-hashing",
        holdout="d3",
        lent=("dawn",),
        borrowed=("dusk", "noon"),
        unlearnt=("night",),
    )
    artifact = site.artifact(
        1,
        lineage=lineage,
        metrics={"test_macro_f1": 0.9, "test_macro_f1_low": 0.75, "test_macro_f1_high": 0.975},
        untested=("label 2",),
        compression={"ratio": 11.5},
        libraries={"numpy": "9.9"},
        parent="before",
        threshold=0.25,
    )
    site.run("publish", artifact.version)
    site.run("publish", site.artifact(2).version)
    site.run("rollback", "--reason", "it was slow")
    site.publish(verdict(artifact.version, promoted=False))
    shown = " ".join(site.run("show", "champion").split())
    for said in (
        f"default {artifact.version}",
        "aliases champion",
        artifact.sha256,
        "3 label 0, label 1, label 2",
        "test_macro_f1 0.9000 (95 % interval 0.7500 to 0.9750)",
        "not tested 1 of 3 labels label 2",
        "partition 0 offsets 5 to 900 (not included)",
        "left out, erased 7",
        "split unkeyed/a-hashing (no key: who writes labels can choose what is tested on)",
        "without holdout d3",
        "never learnt 1 label: night",
        "lent by test 1 label: dawn",
        "lent to test 2 labels: dusk, noon",
        "rows 1,234",
        "recipe seed = 3",
        "ratio 11.5000",
        "numpy 9.9",
        "abstains below 0.2500",
        "refused 1970-01-01 00:00:00Z, against v0",
        "FAILED size the artifact has 2 MB",
        "ok latency a text takes 1 us",
        "champion left for",
        "it was slow",
    ):
        assert said in shown, said


def test_show_is_one_json_object_for_machines(site: Site) -> None:
    artifact = site.artifact(1, lineage=Lineage(source="s", digest="d", rows=1))
    site.run("publish", artifact.version)
    site.publish(verdict(artifact.version, promoted=True))
    document = msgspec.json.decode(site.run("show", "champion", "--json"))
    assert document["version"]["version"] == artifact.version
    assert document["version"]["lineage"]["rows"] == 1
    assert document["aliases"] == ["champion"]
    assert document["verdict"]["promoted"] is True
    assert [move["reason"] for move in document["moves"]] == ["by hand"]


def test_prune_keeps_what_is_in_use_and_the_newest(site: Site) -> None:
    versions = [site.artifact(minute).version for minute in range(1, 7)]
    for version in versions:
        site.run("publish", version)
    site.run("promote", versions[0], "--alias", "mine")
    dry = site.run("prune", "--keep", "1", "--dry-run")
    assert [line.split()[2].rstrip(",") for line in dry.splitlines()] == versions[1:4]
    assert len(list(site.folder.iterdir())) == 6
    site.publish(verdict(versions[2], promoted=False))
    shown = site.run("prune", "--keep", "1")
    assert "default: 3 versions removed, " in shown
    left = {versions[0], *versions[4:]}
    assert {path.name for path in site.folder.iterdir()} == left
    log = site.log()
    assert {version for _, version in log.versions} == left
    assert not log.verdicts
    site.run("rollback")
    assert champion(site) == versions[4]


def answers(version: str, *labels: str) -> list[Outgoing]:
    results = (
        ClassifyResult(offset=at, after=at - 1, crc=0, status=Status.OK, version=version, label=label)
        for at, label in enumerate(labels)
    )
    return [Outgoing(encode_result(result)) for result in results]


def shadowed(site: Site, three: list[str]) -> None:
    """The champion and a challenger have answered three requests, into a topic each."""
    site.run("promote", three[0], "--alias", "challenger")
    site.write("classify.requests", [Outgoing(encode_request(ClassifyRequest(text=f"text {at}"))) for at in range(3)])
    site.write("classify.results", answers(three[2], "sport", "sport", "[news]"))
    site.write("shadow", answers(three[0], "sport", "[news]", "[news]"))
    for results, group in (("classify.results", "g"), ("shadow", "s")):
        site.publish(ResultsClaim(results=results, requests="classify.requests", group=group, claimed_at_ms=0))


def test_compare_joins_the_answers_of_champion_and_challenger(site: Site, three: list[str]) -> None:
    shadowed(site, three)
    shown = " ".join(site.run("compare", "champion", "challenger", "--texts").split())
    assert f"A: {three[2]} in classify.results B: {three[0]} in shadow" in shown
    assert "3 requests were answered by both, 66.67% of them alike." in shown
    assert "sport 2 1 50.0% [news] 1" in shown
    assert "0@1 sport [news] text 1" in shown


def test_compare_is_one_json_object_for_machines(site: Site, three: list[str]) -> None:
    shadowed(site, three)
    arguments = ("compare", three[0], "champion", "--results-a", "shadow", "--results-b", "classify.results", "--json")
    document = msgspec.json.decode(site.run(*arguments))
    assert document["a"] == {"results": "shadow", "version": three[0]}
    assert (document["agreement"]["requests"], document["agreement"]["agreeing"]) == (3, 2)
    assert document["agreement"]["examples"] == [
        {"partition": 0, "offset": 1, "a": "[news]", "b": "sport", "text": None}
    ]


def test_compare_says_what_other_versions_answered(site: Site, three: list[str]) -> None:
    shadowed(site, three)
    shown = " ".join(site.run("compare", three[1], "challenger").split())
    assert "No request was answered by both." in shown
    assert f"3 were answered by other versions (A: {three[2]} 3. B: {three[0]} 3)." in shown


def test_compare_has_to_know_where_the_other_answers_are(site: Site, three: list[str]) -> None:
    with pytest.raises(UserError, match=r"Name it by --results-b TOPIC \(known: none\)"):
        site.run("compare", three[0], three[1])
    shadowed(site, three)
    site.publish(ResultsClaim(results="third", requests="classify.requests", group="t", claimed_at_ms=0))
    with pytest.raises(UserError, match=r"known: shadow, third"):
        site.run("compare", three[0], three[1])
    with pytest.raises(UserError, match="Both sides are shadow"):
        site.run("compare", three[0], three[1], "--results-a", "shadow", "--results-b", "shadow")


def test_an_alias_or_the_beginning_of_a_version_is_taken_where_a_file_is(site: Site, three: list[str]) -> None:
    (site.folder / "rows.jsonl").write_text('{"text": "the good film", "label": "a"}\n', encoding="utf-8")
    for named, version in (("champion", three[-1]), (three[0][:-1], three[0])):
        shown = CliRunner().invoke(cli.app, ["evaluate", named, "rows.jsonl"], catch_exceptions=False).output
        assert f"{named}: version {version}, answered by the cpu backend" in " ".join(shown.split())
    with pytest.raises(VersionNotFoundError, match="no version or alias 'nothing'"):
        CliRunner().invoke(cli.app, ["predict", "nothing", "rows.jsonl"], catch_exceptions=False)


def test_an_unproven_version_is_called_so_and_an_operator_may_promote_it(site: Site, three: list[str]) -> None:
    known = site.log().versions["default", three[0]]
    lineage = Lineage(
        source="classify.labels",
        digest="d",
        rows=0,
        machine_rows=9216,
        machine_weight=0.5,
        teachers=("encoder-1", "program-2"),
        teacher_weights={"program-2": 0.25},
        machine_offsets=(OffsetRange(0, 0, 9216),),
        unproven=True,
    )
    site.publish(msgspec.structs.replace(known, lineage=lineage, unproven=True))
    listed = next(line for line in site.run("list").splitlines() if three[0] in line)
    assert "unproven" in listed
    shown = site.run("show", three[0])
    for said in ("unproven", "9,216, each counted 0.5000", "encoder-1", "program-2, times 0.2500 (trainer.sources)"):
        assert said in shown, shown
    assert "machine labels 0" in shown
    printed = site.run("promote", three[0], "--no-check")
    assert f"WARNING: {three[0]} is unproven: no person labelled any of its rows" in printed
    assert champion(site) == three[0]
