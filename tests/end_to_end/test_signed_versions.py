"""The real worker where signatures are asked for, and the commands that make a key and publish by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typer.testing import CliRunner

from headrace import cli
from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from tests.support.networks import random_network
from tests.support.own_topics import OwnTopics


async def test_a_worker_takes_up_what_its_key_signed_and_goes_on_by_it_when_somebody_publishes_without(
    embedded_bootstrap, tmp_path: Path, monkeypatch
):
    place = OwnTopics(embedded_bootstrap, None, tmp_path, embedded=True)

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, [*place.at, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    signed, unsigned = (assemble(quantize(random_network(seed)), About(created_at_ms=seed)) for seed in (1, 2))
    for made in (signed, unsigned):
        save(made, str(tmp_path / made.version))
    await run("topics", "apply")
    public = await run("models", "keygen", "--out", str(tmp_path / "key.pem"))
    with monkeypatch.context() as signing:
        signing.setenv("HEADRACE_SIGNING__KEY_FILE", str(tmp_path / "key.pem"))
        await run("models", "publish", str(tmp_path / signed.version))
    with monkeypatch.context() as trusting:
        trusting.setenv("HEADRACE_SIGNING__TRUSTED", public)
        async with place.worker(), place.client() as client:
            await place.logged(f"worker.started version={signed.version}")
            trusting.undo()
            # Whoever has no key can still write the record and move the alias.
            await run("models", "publish", str(tmp_path / unsigned.version))
            await place.logged(f"error model.load_failed version={unsigned.version} .*is not signed")
            answer = await client.classify("the good film")
            assert answer.version == signed.version
