"""`headrace topics claim` on the twin: what it shows, and that it raises and never lowers."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.core.errors import UserError
from headrace.registry.compacted_topics import WorkersWriter
from headrace_schemas.records import ResultsClaim
from tests.support.models_site import WORKERS, Site

CLAIM = ResultsClaim(
    results="classify.results",
    requests="classify.requests",
    group="answering",
    claimed_at_ms=1_764_000_000_000,
    starts=(0, 17),
    max_batch=1024,
    claimer="5f2b",
)


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


def claimed(site: Site, claim: ResultsClaim = CLAIM) -> None:
    asyncio.run(WorkersWriter(site.cluster.producer(), WORKERS).publish([claim]))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["topics", "claim", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_claim_is_shown_with_who_made_it_when_and_from_where(site):
    claimed(site)
    assert run().splitlines() == [
        "classify.results: answers of group answering to classify.requests",
        "  claimed 2025-11-24 16:00:00 UTC",
        "  began at 0@0, 1@17",
        "  at most 1,024 requests in one batch",
    ]


def test_a_claim_is_raised_and_never_lowered(site):
    claimed(site)
    assert "at most 2,048 requests" in run("--max-batch", "2048")
    assert "at most 2,048 requests" in run("--max-batch", "2048")
    with pytest.raises(UserError, match="allows 2,048 requests in one batch, and is never lowered"):
        run("--max-batch", "1024")
    assert "at most 2,048 requests" in run()


def test_no_claim_allows_more_than_any_worker_may_be_set_to(site):
    claimed(site)
    with pytest.raises(UserError, match=r"worker\.max_batch is at most 4096"):
        run("--max-batch", "5000")


def test_a_topic_that_nobody_has_claimed_has_nothing_to_raise(site):
    with pytest.raises(UserError, match=r"Nobody has claimed classify\.results yet"):
        run("--max-batch", "2048")


def test_a_claim_that_an_older_worker_has_made_is_shown_before_it_is_copied(site):
    site.publish(ResultsClaim(results="classify.results", requests="classify.requests", group="old", claimed_at_ms=0))
    shown = run()
    assert "answers of group old" in shown
    assert "began at the beginning" in shown
    assert "at most 4,096 requests" in shown
