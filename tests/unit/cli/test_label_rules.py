"""`headrace labels rename`, `merge`, `retire` and `rules` on the twin."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.commands.label_rules import LabelRuleError
from headrace.core.cascade import RANDOM_SLICE
from headrace.kafka.interface import Outgoing
from headrace.learning.data.random_slice import asked_by_rules, read_label_records
from headrace.learning.evaluate import Answered
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText, LabelRule
from tests.support.models_site import Site


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    return Site(tmp_path, monkeypatch)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["labels", *map(str, arguments)], catch_exceptions=False)


def held(site: Site) -> dict[str, str | None]:
    return site.log().rules_of("default")


def test_rules_are_kept_listed_and_taken_back(site: Site) -> None:
    assert "economy is learnt as business from now on" in run("rename", "economy", "business").output
    assert "gossip is no longer learnt" in run("retire", "gossip", "--reason", "nobody asks", "--by", "olga").output
    assert site.log().label_rules["default", "gossip"].by == "olga"
    said = run("merge", "tennis", "football", "sport", "--into", "sport").output
    assert "tennis, football are learnt as sport" in said
    assert "models train --now" in said
    rules = {"economy": "business", "football": "sport", "gossip": None, "tennis": "sport"}
    assert held(site) == rules
    rows = [json.loads(line) for line in run("rules", "--json").output.splitlines()]
    assert {row["label"]: row.get("becomes") for row in rows} == rules
    shown = run("rules").output
    assert "(no longer given)" in shown
    assert "nobody asks" in shown
    assert "4 rules of labels" in shown
    assert "took back 2 rules" in run("rules", "--undo", "gossip", "--undo", "tennis ").output
    assert held(site) == {"economy": "business", "football": "sport"}
    with pytest.raises(LabelRuleError, match="no rule of gossip"):
        run("rules", "--undo", "gossip")


def test_a_circle_is_refused_in_words_and_of_a_merge_all_or_none_is_written(site: Site) -> None:
    run("rename", "a", "b")
    with pytest.raises(LabelRuleError, match="a becomes b: they would go in a circle"):
        run("rename", "b", "a")
    with pytest.raises(LabelRuleError, match="circle"):
        run("merge", "x", "b", "--into", "a")
    with pytest.raises(LabelRuleError, match="nothing to change"):
        run("merge", "a", "--into", "a")
    assert held(site) == {"a": "b"}


def test_certificates_go_by_the_rules_for_labels_and_for_answers_of_before(site: Site) -> None:
    site.publish(
        *(
            LabelRule(name="default", label=label, becomes=becomes, decided_at_ms=1)
            for label, becomes in (("economy", "business"), ("gossip", None))
        )
    )
    labels = [LabelledText(text=f"t {name}", label=name, source=RANDOM_SLICE) for name in ("economy", "gossip", "x")]
    site.write("labels", [Outgoing(encode_label(one), one.label.encode()) for one in labels])
    found = asyncio.run(read_label_records(site.cluster, "labels", 1000, held(site)))
    assert [(one.label, one.source) for _, _, one in found] == [("business", RANDOM_SLICE), ("x", RANDOM_SLICE)]

    def ask(texts):
        return Answered(("economy", "gossip", "x"), (0.9, 0.8, 0.7))

    assert asked_by_rules(ask, held(site))(["a", "b", "c"]).labels == ("business", "gossip", "x")
